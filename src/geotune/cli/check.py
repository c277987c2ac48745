"""`geotune check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, print_table, show_progress
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from geotune.api.checking import CheckResult


def check(
    recipe: Path,
    *overrides: str,
    page: Path | None = None,
    reread: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Read every file of a recipe's data and report all problems.

    The check continues after errors. geotune fit rejects what is an error here. Exit code 1 if
    there is an error.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes, such as data.split.fold=2.
    page
        HTML file to write; by default checks/<recipe name>.html.
    reread
        Also read files that did not change since they were last read.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.checking import check as check_recipe
            from geotune.api.checking import check_to_dict
        result = check_recipe(
            recipe,
            overrides,
            page=page,
            reread=reread,
            on_message=message,
            on_progress=on_progress,
        )
    if as_json:
        print_json(check_to_dict(result))
    else:
        _show_check(result)
    if result.count("error"):
        sys.exit(1)


SEVERITY_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def _show_check(result: CheckResult) -> None:
    for issue in result.issues:
        style = SEVERITY_STYLES[issue.severity]
        out().print(f"[{style}]{issue.severity}[/{style}] {escape(issue.text)}")
    if result.class_counts:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("class", *result.class_counts):
            table.add_column(column, justify="right" if table.columns else "left")
        for name in next(iter(result.class_counts.values())):
            shares = [_share(counts, name) for counts in result.class_counts.values()]
            table.add_row(escape(name), *shares)
        print_table(table)
    counts = ", ".join(pluralize(result.count(word), word) for word in SEVERITY_STYLES)
    out().print(f"{pluralize(result.scenes, 'scene')} read: {counts}")
    out().print(f"page: {escape(str(result.page))}")


def _share(counts: dict[str, int], name: str) -> str:
    """Count and share of a class."""
    total = sum(counts.values())
    return f"{counts[name]:,} ({counts[name] / total:.1%})" if total else "0"
