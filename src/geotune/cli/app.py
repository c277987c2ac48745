"""The command-line program."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

import geotune
from geotune.cli.average import average
from geotune.cli.bench import bench
from geotune.cli.cache import cache
from geotune.cli.card import card
from geotune.cli.check import check
from geotune.cli.console import err, escape
from geotune.cli.demo import demo
from geotune.cli.distill import distill
from geotune.cli.embed import embed
from geotune.cli.export import export
from geotune.cli.fit import finish, fit
from geotune.cli.init import init
from geotune.cli.list_ import list_
from geotune.cli.map import map_
from geotune.cli.plan import plan
from geotune.cli.predict import predict
from geotune.cli.pretrain import pretrain
from geotune.cli.push import push
from geotune.cli.shared_options import MapContent, ModelFiles, SceneFiles
from geotune.cli.test import test
from geotune.cli.unpack import unpack
from geotune.cli.usage_errors import usage_error
from geotune.cli.view import view
from geotune.errors import GeotuneError
from geotune.utils.remote import remote_reading, without_servers
from geotune.utils.text import first_line

LogLevel = Literal["debug", "info", "warning", "error"]

app = App(
    name="geotune",
    help="Fine-tune geospatial foundation models on the hardware you have.",
    version=lambda: geotune.__version__,
    version_flags=["--version"],
    help_format="plaintext",  # markdown needs another import
    suppress_keyboard_interrupt=False,  # main prints the message for Ctrl+C
    default_parameter=Parameter(negative_iterable=()),  # no --empty-NAME
    error_formatter=usage_error,
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


for shared in (ModelFiles, SceneFiles, MapContent):
    shared.__doc__ = _paragraphs(shared.__doc__ or "")

for command in (
    init, check, plan, pretrain, fit, finish, cache, test, predict, map_, view, embed, export,
    distill, average, push, card, bench, list_, unpack, demo,
):  # fmt: skip
    command.__doc__ = _paragraphs(command.__doc__ or "")
    app.command(command, name=command.__name__.rstrip("_"))


app.register_install_completion_command(
    help="Complete commands and options with Tab in this shell."
)


app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(negative="")] = False,
    log_level: LogLevel = "warning",
    remote: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run a command.

    Parameters
    ----------
    quiet
        Print results and errors only: no notes, no progress.
    log_level
        Lowest level of the libraries' messages; debug also traces unexpected errors.
    remote
        Allow reading scenes and labels from servers: https://, s3:// and gs://.
    """
    logging.basicConfig(level=log_level.upper(), force=True)
    err().quiet = quiet
    with remote_reading() if remote else without_servers():
        app(tokens, exit_on_error=False)


AFTER_INTERRUPT = {
    "fit": "Run the same command again to resume from the last completed epoch, if there is one.",
    "distill": "Run the same command again to resume from the last completed epoch.",
    "pretrain": "Run the same command again to resume from the last completed epoch, if there is "
    "one.",
    "demo": "Run the same command again to resume from the last completed epoch.",
    "bench": "Run the same command again to resume; completed runs are kept.",
    "cache": "Run the same command again to compute the missing features.",
    "map": "Run the same command again to resume; finished tiles are kept.",
}
"""What an interrupted command leaves, if it leaves something."""


REFUSED = {
    errno.EACCES: "check the rights of the file and its folder",
    errno.EPERM: "check the rights of the file and its folder",
    errno.EROFS: "the disk is mounted for reading only: choose another folder",
    errno.ENOSPC: "free disk space, or choose another folder",
    errno.EDQUOT: "free disk space, or choose another folder",
    errno.EFBIG: "the file system holds no file of this size: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: correct the path",
    errno.EISDIR: "expected a file: correct the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a link leads to itself: remove it, or correct the path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, which have too many files open",
    errno.EIO: "the disk fails: check it, or choose another folder",
}
"""What to do if the operating system refuses a file for reasons outside geotune."""


def main() -> None:
    """Run a command and exit with one of the codes in `docs/reference/commands.md`.

    An error is a message, never a traceback.
    """
    argv = sys.argv[1:]
    try:
        app.meta(argv, exit_on_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        command = next((name for name in AFTER_INTERRUPT if name in argv), "")
        again = AFTER_INTERRUPT.get(command, "")
        if command in ("fit", "pretrain"):  # says which run, and whether it has an epoch
            again = next(iter(getattr(interrupt, "__notes__", ())), again)
        err().quiet = False
        err().print(f"Interrupted. {again}".rstrip())
        # Native threads may still compute; the interpreter's teardown would crash under them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)
    except BrokenPipeError:  # what reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except CycloptsError:  # printed by cyclopts
        sys.exit(2)
    except GeotuneError as error:
        _print_error(argv, str(error), error.code, error.key, error.file)
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSED:
            _unexpected(argv, error)
        where = os.getcwd() if error.filename is None else error.filename
        text = f"{where}: {error.strerror}; {REFUSED[error.errno]}"
        _print_error(argv, text, "file-access", file=Path(os.fsdecode(where)))
        sys.exit(1)
    except Exception as error:
        from geotune.memory.oom import is_oom  # imports torch

        if not is_oom(error):
            _unexpected(argv, error)
        text = f"memory ran out ({first_line(error)}); use a smaller window or batch, or fewer "
        _print_error(argv, f"{text}processes at once", "out-of-memory")
        sys.exit(1)


def _unexpected(argv: Sequence[str], error: Exception) -> NoReturn:
    logging.getLogger("geotune").debug("unexpected error", exc_info=True)
    text = f"unexpected {type(error).__name__}: {error}; this is a mistake in geotune, please "
    text += "report it with the output of the same command and --log-level debug"
    _print_error(argv, text, "internal")
    sys.exit(3)


def _print_error(
    argv: Sequence[str], text: str, code: str, key: str | None = None, file: Path | None = None
) -> None:
    if "--json" in argv:
        report = {"error": text, "code": code, "key": key}
        report["file"] = None if file is None else str(file)
        print(json.dumps(report, ensure_ascii=False))
    err().quiet = False
    err().print(f"[red]error:[/red] {escape(text)} [dim]({code})[/dim]")
