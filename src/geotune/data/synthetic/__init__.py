"""Scenes that are drawn from a seed: what the demo maps, and what tests are made of."""
