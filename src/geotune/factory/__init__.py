"""Builds the objects of a recipe: data, model and task."""
