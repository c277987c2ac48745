"""Scenes of published data sets, from their descriptions in `geotune.datasets`."""
