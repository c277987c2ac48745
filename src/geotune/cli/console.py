"""What the commands share: reading a recipe, and saying things to people and to machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console

    from geotune.config import Recipe

Json = Annotated[bool, Parameter(name="--json", negative="", help="print one JSON object instead")]


def out() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def counting(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar of progress; gives a function that is told how many are done of how many."""
    from geotune.utils import progress

    return progress.counting(err(), what)


def recipe_of(path: Path, overrides: tuple[str, ...]) -> Recipe:
    """A file read with its changes; what there is to note is said."""
    from geotune.config import load_recipe

    recipe, notes = load_recipe(path, overrides)
    for note in notes:
        say(f"note: {note}")
    return recipe


def escape(text: str) -> str:
    """Text that stands as it is on a console."""
    return text.replace("[", r"\[")


def say(text: str) -> None:
    """A line beside the results."""
    err().print(f"[dim]{escape(text)}[/dim]")


def print_json(values: Any) -> None:
    """One JSON object as the whole result."""
    print(json.dumps(_plain(values), ensure_ascii=False, default=str))


def _plain(values: Any) -> Any:
    """The values with numbers that JSON lacks as null."""
    if isinstance(values, float):
        return values if values - values == 0 else None
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
