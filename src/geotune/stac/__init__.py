"""STAC items of models (extension MLM 1.5.2) and of predictions, as plain values."""
