"""The runs of a suite as a table: a line per run, with the recipe keys that differ between runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import yaml

from geotune.bench.suite import Changes, Suite
from geotune.errors import RecipeError
from geotune.utils.text import suggest

RunTable = Mapping[tuple[str, ...], Changes]
"""Recipe and label on each axis of the grid, in order, to the changes of this run."""


def read_run_table(suite: Suite) -> RunTable | None:
    """Read the table of a suite; None without one.

    Columns are `recipe`, the axes of the grid, and recipe keys; an empty cell sets nothing. Raises
    `RecipeError` for an unreadable file, unknown columns and labels, and two lines of one run.
    """
    path = suite.runs
    if path is None:
        return None
    choices = {"recipe": list(suite.recipes), **{axis: list(c) for axis, c in suite.grid.items()}}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _error(path, f"not a readable CSV file ({error}); check runs") from error
    for axis in choices:
        if axis not in columns:
            raise _error(path, f"no column {axis!r}; {suggest(axis, columns)}")
    table: dict[tuple[str, ...], Changes] = {}
    for number, line in enumerate(lines, 2):
        if None in line or None in line.values():
            raise _error(path, f"line {number}: expected {len(columns)} cells")
        for axis, known in choices.items():
            if line[axis] not in known:
                raise _error(
                    path,
                    f"line {number}: {line[axis]!r} is not a choice of {axis}; "
                    f"{suggest(line[axis], known)}",
                )
        key = tuple(line[axis] for axis in choices)
        if key in table:
            raise _error(path, f"line {number}: a second line of {', '.join(key)}; remove one")
        table[key] = {
            column: _value(path, number, text)
            for column, text in line.items()
            if column not in choices and text
        }
    return table


def _value(path: Path, number: int, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _error(path, f"line {number}: {text!r} is not a valid value: {error}") from error


def _error(path: Path, problem: str) -> RecipeError:
    return RecipeError(f"{path}: {problem}", code="suite-invalid", key="runs", file=path)
