"""Backbones of torchgeo, a file per family."""
