"""Console helpers that the commands share."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from geotune.utils.progress import ProgressDisplay

Json = Annotated[bool, Parameter(name="--json", negative="", help="print one JSON object")]

_PIPE_WIDTH = 100_000
"""Characters that no line of a table reaches."""


def out() -> Console:
    """Standard output, for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)  # hub:a: is a name


def print_table(table: Table) -> None:
    """Print a table; in a file or pipe as wide as its content, so that no name is cut."""
    console = out()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)


@cache
def err() -> Console:
    """Standard error, for progress, notes and errors; one console, as lines move its bars."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def show_progress() -> ProgressDisplay:
    """Bars on a terminal, lines in a file; its context yields an `OnProgress`.

    Of several processes of a training, only the main one shows them.
    """
    from rich.console import Console

    from geotune.utils.processes import is_helper_process
    from geotune.utils.progress import ProgressDisplay

    return ProgressDisplay(Console(quiet=True) if is_helper_process() else err())


def escape(text: str) -> str:
    r"""Text without console markup; `\[` stays, too."""
    # only what looks like a tag needs its backslashes twice
    return re.sub(
        r"(\\*)\[([a-z#/@][^[]*?\])?",
        lambda m: m[1] * (2 if m[2] else 1) + r"\[" + (m[2] or ""),
        text,
    )


def message(text: str) -> None:
    """Print a line to standard error."""
    err().print(text, style="dim", markup=False)


def print_json(values: Any) -> None:
    """Print one JSON object, with NaN and infinity as null."""
    from geotune.utils.json_values import nan_to_none

    print(json.dumps(nan_to_none(values), ensure_ascii=False, default=str))
