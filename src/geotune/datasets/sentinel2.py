"""Bands of Sentinel-2 in the order in which products list them."""

ALL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
"""Level 1C."""
SURFACE = [band for band in ALL if band != "B10"]
"""Level 2A has no cirrus band."""
