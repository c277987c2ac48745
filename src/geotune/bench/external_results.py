"""Numbers of others, read from a CSV as it is."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from geotune.bench.suite import Published, nearest
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class ExternalResult:
    """One published number.

    Attributes:
        recipe, method: of ours beside which it stands.
        spread: its standard deviation; None where none is published.
        labels: by axis the one label beside which it stands; without an axis beside all of its.
    """

    recipe: str
    method: str
    value: float
    spread: float | None
    source: str
    labels: Mapping[str, str] = field(default_factory=dict)


def read_external_results(asked: Published) -> list[ExternalResult]:
    """The figures that a suite asks for; a cell without a number gives none.

    Raises `GeotuneError` for a file that cannot be read, columns that it lacks, and one in which no
    line is asked for.
    """
    lines = _lines(asked)
    if len(lines) <= asked.header:
        raise GeotuneError(
            f"{asked.file}: has {len(lines)} lines, expected more than the {asked.header} of its "
            "header; see published.header"
        )
    names = _names(lines[: asked.header])
    values, spreads = asked.values.values(), asked.spreads.values()
    wanted = [asked.method, *asked.only, *asked.axes.values(), *values, *spreads]
    for column in wanted:
        if column not in names:
            raise GeotuneError(f"{asked.file}: has no column {column!r}; {nearest(column, names)}")
    figures = []
    rows = [dict(zip(names, line, strict=False)) for line in lines[asked.header :]]
    chosen = [row for row in rows if all(row.get(k) == v for k, v in asked.only.items())]
    if not chosen:
        raise GeotuneError(f"{asked.file}: no line has {asked.only}; see published.only")
    for row in chosen:
        method = asked.names.get(row[asked.method], row[asked.method])
        labels = {axis: row[column] for axis, column in asked.axes.items()}
        for recipe, column in asked.values.items():
            value = _number(asked, row.get(column, ""))
            if value is not None:
                spread = _number(asked, row.get(asked.spreads.get(recipe, ""), ""))
                figures.append(ExternalResult(recipe, method, value, spread, asked.source, labels))
    return figures


def _lines(asked: Published) -> list[list[str]]:
    try:
        with asked.file.open(newline="", encoding="utf-8") as file:
            return [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeotuneError(f"{asked.file}: cannot be read as CSV ({error})") from error


def _names(header: Sequence[Sequence[str]]) -> list[str]:
    """Names of the columns: the words above each, joined by slashes."""
    width = max(map(len, header))
    full = [[*line, *[""] * (width - len(line))] for line in header]
    return ["/".join(word for word in column if word) for column in zip(*full, strict=True)]


def _number(asked: Published, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text) * asked.scale
    except ValueError as error:
        raise GeotuneError(f"{asked.file}: found {text!r}, expected a number") from error
