"""Descriptions of published data sets: classes, bands, splits, source and file layout."""
