"""HTML reports of training runs and data checks."""
