"""Synthetic scenes for the demo and for tests."""
