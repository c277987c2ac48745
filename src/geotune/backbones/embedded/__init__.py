"""Backbones whose pretrained weights are part of the package."""
