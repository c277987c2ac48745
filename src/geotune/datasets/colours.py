"""Bands of photographs."""

RGB = ["red", "green", "blue"]
