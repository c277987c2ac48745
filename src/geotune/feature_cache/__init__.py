"""Features of a constant backbone, computed once and kept."""
