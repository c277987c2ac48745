"""Prediction of whole scenes: tiling, blending, writing."""
