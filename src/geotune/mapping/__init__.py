"""`geotune map`: predict many scenes tile by tile, with any number of workers and restarts."""
