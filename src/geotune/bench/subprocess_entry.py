"""Run geotune commands in sequence and exit when the parent process ends.

`python -m geotune.bench.subprocess_entry '["fit", ...]' '["test", ...]'`, with a pipe as standard
input: the operating system closes the pipe when its other end disappears, so a killed suite leaves
no training behind.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading


def _exit_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    for command in map(json.loads, sys.argv[1:]):
        sys.argv = ["geotune", *command, "--json"]
        try:
            runpy.run_module("geotune", run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise
