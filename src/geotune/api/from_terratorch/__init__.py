"""A configuration of TerraTorch as a recipe."""
