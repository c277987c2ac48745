"""What each task shows on the page: a file each, and a line in `catalog.py`."""
