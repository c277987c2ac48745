"""Splits: which scenes or chips train, validate and test. Always whole ones."""
