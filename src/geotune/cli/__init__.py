"""The commands, a file each; nothing heavy is imported before it is needed."""

from geotune.cli.app import main

__all__ = ["main"]
