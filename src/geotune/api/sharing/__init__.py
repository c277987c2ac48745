"""`geotune push`: the folder that is uploaded, and the upload."""
