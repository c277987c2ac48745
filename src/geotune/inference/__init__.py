"""Mapping whole scenes: windows, blending, writing."""
