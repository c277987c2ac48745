"""`geotune init`: look at imagery and labels, and write a recipe that trains on them."""
