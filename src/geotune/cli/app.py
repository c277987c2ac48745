"""The command-line program."""

from __future__ import annotations

import json
import os
import signal
import sys

from cyclopts import App

import geotune
from geotune.cli.bench import bench
from geotune.cli.cache import cache
from geotune.cli.check import check
from geotune.cli.console import err, escape
from geotune.cli.demo import demo
from geotune.cli.fit import finish, fit
from geotune.cli.init import init
from geotune.cli.list_ import list_
from geotune.cli.plan import plan
from geotune.cli.predict import predict
from geotune.cli.test import test
from geotune.cli.unpack import unpack
from geotune.errors import GeotuneError

app = App(
    name="geotune",
    help="Fine-tune geospatial foundation models on the hardware you have.",
    version=lambda: geotune.__version__,
    version_flags=["--version"],
    help_format="plaintext",  # markdown needs another import
    suppress_keyboard_interrupt=False,  # main prints the message for Ctrl+C
)


def _paragraphs(doc: str) -> str:
    """A docstring with joined lines; the console wraps them."""
    lines: list[str] = []
    for line in doc.splitlines():
        text, before = line.strip(), lines[-1] if lines else ""
        depth = len(line) - len(line.lstrip())
        ruled = text.startswith("--") or before.endswith("--")
        if text and before and not ruled and depth == len(before) - len(before.lstrip()):
            lines[-1] += f" {text}"
        else:
            lines.append(line)
    return "\n".join(lines)


for command in (
    init, check, plan, fit, finish, cache, test, predict, bench, list_, unpack, demo
):  # fmt: skip
    command.__doc__ = _paragraphs(command.__doc__ or "")
    app.command(command, name=command.__name__.rstrip("_"))


AFTER_INTERRUPT = {
    "fit": "Run the same command again to resume from the last completed epoch, or geotune finish "
    "RUN to keep the best epoch so far.",
    "demo": "Run the same command again to resume from the last completed epoch.",
    "bench": "Run the same command again to resume; completed runs are kept.",
    "cache": "Run the same command again to compute the missing features.",
}
"""What an interrupted command leaves, if it leaves something."""


def main() -> None:
    """Run a command; an error that the user can fix is one message and exit code 1."""
    argv = sys.argv[1:]
    try:
        app(argv)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        again = AFTER_INTERRUPT.get(argv[0] if argv else "", "")
        err().print(f"Interrupted. {again}".rstrip())
        # Native threads may still compute; the interpreter's teardown would crash under them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)
    except GeotuneError as error:
        if "--json" in argv:
            report = {"error": str(error), "code": error.code, "key": error.key}
            report["file"] = None if error.file is None else str(error.file)
            print(json.dumps(report, ensure_ascii=False))
        err().print(f"[red]error:[/red] {escape(str(error))} [dim]({error.code})[/dim]")
        sys.exit(1)
