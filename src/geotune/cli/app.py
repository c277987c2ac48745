"""The program: its commands, and what it says when one fails."""

from __future__ import annotations

import json
import sys

from cyclopts import App

import geotune
from geotune.cli.bench import bench
from geotune.cli.cache import cache
from geotune.cli.check import check
from geotune.cli.console import err, escape
from geotune.cli.demo import demo
from geotune.cli.fit import fit
from geotune.cli.list_ import list_
from geotune.cli.plan import plan
from geotune.cli.predict import predict
from geotune.cli.test import test

app = App(
    name="geotune",
    help="Fine-tune geospatial foundation models on the hardware you have.",
    version=lambda: geotune.__version__,
    version_flags=["--version"],
    help_format="plaintext",  # markdown would be imported for it
    suppress_keyboard_interrupt=False,  # main says what Ctrl+C leaves
)


def _paragraphs(doc: str) -> str:
    """A docstring whose lines are joined, for a console breaks them where it ends."""
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


for command in (fit, check, plan, cache, test, predict, bench, list_, demo):
    command.__doc__ = _paragraphs(command.__doc__ or "")
    app.command(command, name=command.__name__.rstrip("_"))


def main() -> None:
    """Run a command; a fault that the user can mend is one line and exit code 1."""
    argv = sys.argv[1:]
    try:
        app(argv)
    except KeyboardInterrupt:
        err().print("stopped; the same command goes on from the last finished epoch")
        sys.exit(130)
    except Exception as error:
        if not _is_ours(error):
            raise
        if "--json" in argv:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        err().print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(1)


def _is_ours(error: Exception) -> bool:
    """Whether an error is one that geotune words for its user."""
    for module, name in (("geotune.config", "RecipeError"), ("geotune.types", "GeotuneError")):
        loaded = sys.modules.get(module)  # not imported: then it cannot be its error
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return True
    return False
