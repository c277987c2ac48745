"""The commands, one file each; heavy libraries are imported when they are needed."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run a command; Ctrl+C already counts while its parser is imported."""
    try:
        from geotune.cli.app import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr, flush=True)
        os._exit(130)
    run()
