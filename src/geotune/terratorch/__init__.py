"""geotune's methods in TerraTorch: `backbone: geotune_est__prithvi_eo_v2_300`."""
