"""Published results, read from CSV files in their original layout."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from geotune.bench.suite import PublishedOptions, Regions
from geotune.errors import GeotuneError
from geotune.utils.text import suggest


@dataclass(frozen=True)
class ExternalResult:
    """One published number.

    Attributes:
        recipe, method: the recipe and method of the suite that it is compared with.
        spread: its standard deviation; None if not published.
        labels: labels of the grid, by axis, to which it is restricted.
        regions: part of the test split that it is of, as in `PublishedOptions`.
    """

    recipe: str
    method: str
    value: float
    spread: float | None
    source: str
    labels: Mapping[str, str] = field(default_factory=dict)
    regions: Regions = "all"


def read_external_results(options: PublishedOptions) -> list[ExternalResult]:
    """Read the results that a suite selects; empty cells are skipped.

    Raises `GeotuneError` for an unreadable file, missing columns, or no matching line.
    """
    lines = _lines(options)
    if len(lines) <= options.header:
        raise GeotuneError(
            f"{options.file}: found {len(lines)} lines, expected more than the {options.header} "
            "header lines of published.header",
            code="file-unreadable",
            key="published.header",
            file=options.file,
        )
    names = _names(lines[: options.header])
    values, spreads = options.values.values(), options.spreads.values()
    required = [options.method, *options.only, *options.axes.values(), *values, *spreads]
    for column in required:
        if column not in names:
            raise GeotuneError(
                f"{options.file}: no column {column!r}; {suggest(column, names)}",
                code="column-missing",
                file=options.file,
            )
    results = []
    rows = [dict(zip(names, line, strict=False)) for line in lines[options.header :]]
    selected = [row for row in rows if all(row.get(k) == v for k, v in options.only.items())]
    if not selected:
        raise GeotuneError(
            f"{options.file}: no line matches published.only: {options.only}",
            code="suite-results-missing",
            key="published.only",
            file=options.file,
        )
    for row in selected:
        method = options.names.get(row[options.method], row[options.method])
        labels = {axis: row[column] for axis, column in options.axes.items()} | options.labels
        for recipe, column in options.values.items():
            value = _number(options, row.get(column, ""))
            if value is not None:
                spread = _number(options, row.get(options.spreads.get(recipe, ""), ""))
                results.append(
                    ExternalResult(
                        recipe, method, value, spread, options.source, labels, options.regions
                    )
                )
    return results


def _lines(options: PublishedOptions) -> list[list[str]]:
    try:
        with options.file.open(newline="", encoding="utf-8") as file:
            return [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeotuneError(
            f"{options.file}: not a readable CSV file ({error}); check the path and the format",
            code="file-unreadable",
            file=options.file,
        ) from error


def _names(header: Sequence[Sequence[str]]) -> list[str]:
    """Column names: the header words above each column, joined by slashes."""
    width = max(map(len, header))
    full = [[*line, *[""] * (width - len(line))] for line in header]
    return ["/".join(word for word in column if word) for column in zip(*full, strict=True)]


def _number(options: PublishedOptions, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text) * options.scale
    except ValueError as error:
        raise GeotuneError(
            f"{options.file}: found {text!r}, expected a number",
            code="row-invalid",
            file=options.file,
        ) from error
