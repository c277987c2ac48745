"""Splitters: assign scenes, or the blocks that they are cut into, to train, val and test."""
