"""`geotune list`."""

from __future__ import annotations

from typing import Literal

from geotune.cli.console import Json, escape, out, print_json


def list_(
    category: Literal["backbones", "methods", "decoders", "tasks", "datasets"],
    name: str | None = None,
    as_json: Json = False,
) -> None:
    """List backbones, methods, decoders, tasks and datasets.

    Parameters
    ----------
    category
        backbones, methods, decoders, tasks or datasets.
    name
        Only names that contain this text; the full name of a backbone or of a published data set
        shows its details.
    """
    from geotune.info import describe, list_components

    details = None if name is None else describe(category, name)
    if details is not None:
        values, pairs = details
        if as_json:
            print_json(values)
            return
        for label, text in pairs:
            out().print(f"[bold]{escape(label)}[/bold]: {escape(text)}")
        return
    text = (name or "").lower()
    rows = [row for row in list_components(category) if text in row["name"].lower()]
    if as_json:
        print_json({category: rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ("name",):
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    out().print(table)
