"""Band names that several data sets share."""

RGB = ["red", "green", "blue"]
SENTINEL2_L1C = [
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
]  # fmt: skip
SENTINEL2_L2A = [band for band in SENTINEL2_L1C if band != "B10"]
"""Without the cirrus band, which surface reflectance products lack."""
