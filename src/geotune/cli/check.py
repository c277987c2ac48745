"""`geotune check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.cli.console import Json, counting, escape, out, print_json, recipe_of, say
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from geotune.api.checking import Checked


def check(
    recipe: Path,
    *overrides: str,
    page: Path | None = None,
    as_json: Json = False,
) -> None:
    """Read a recipe's data once and say all that is wrong with it, file by file.

    What it calls an error, geotune fit refuses. The exit code is 1 where there is one.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as data.split.fold=2.
    page
        Where the HTML goes; by default checks/ with the recipe's name.
    """
    read = recipe_of(recipe, overrides)
    from geotune.api.checking import check_recipe, check_values

    page = page or Path("checks") / f"{recipe.stem}.html"
    with counting("scenes") as progress:
        found = check_recipe(read, page, title=recipe.stem, say=say, progress=progress)
    if as_json:
        print_json(check_values(found))
    else:
        _show_check(found)
    if found.count("error"):
        sys.exit(1)


SEVERITY_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def _show_check(found: Checked) -> None:
    for one in found.findings:
        style = SEVERITY_STYLES[one.severity]
        out().print(f"[{style}]{one.severity}[/{style}] {escape(one.text)}")
    if found.class_counts:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("class", *found.class_counts):
            table.add_column(column, justify="right" if table.columns else "left")
        for name in next(iter(found.class_counts.values())):
            shares = [_share(counts, name) for counts in found.class_counts.values()]
            table.add_row(escape(name), *shares)
        out().print(table)
    counts = ", ".join(pluralize(found.count(word), word) for word in SEVERITY_STYLES)
    out().print(f"{pluralize(found.scenes, 'scene')} read: {counts}")
    out().print(f"page: {found.page}")


def _share(counts: dict[str, int], name: str) -> str:
    """How much of a class is labelled, and which share of all that is."""
    total = sum(counts.values())
    return f"{counts[name]:,} ({counts[name] / total:.1%})" if total else "0"
