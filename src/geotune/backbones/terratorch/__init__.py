"""Backbones of TerraTorch, a file per family."""
