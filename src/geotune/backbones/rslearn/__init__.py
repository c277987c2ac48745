"""Backbones of rslearn, a file per family."""
