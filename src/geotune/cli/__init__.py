"""The commands, one file each; heavy libraries are imported when they are needed."""

from geotune.cli.app import main

__all__ = ["main"]
