"""A command of geotune that ends with the process that started it, however that ends.

`python -m geotune.bench.child fit ...` with a pipe as its standard input: the system closes the
pipe when its other end is gone, so that nothing trains on for a suite that was killed.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("geotune", run_name="__main__")
