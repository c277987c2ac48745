"""Metrics for people: their names, and a table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geotune.cli.console import escape

if TYPE_CHECKING:
    from rich.table import Table

METRICS = {
    "miou": "mean IoU",
    "iou": "IoU",
    "f1": "F1",
    "ap": "average precision",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "relative": "relative error",
}
"""Metrics as people call them; the others go by their own name."""


def metrics_table(part: str, metrics: dict[str, Any]) -> Table:
    """The main metric, which is the first, as the title; below it classes, or the other figures."""
    from rich.table import Table

    main, *others = (name for name in metrics if "/" not in name)
    title = f"{part}: {METRICS.get(main, main)} {score(metrics[main])}"
    table = Table(title=escape(title), title_justify="left", box=None)
    figures = list(dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name))
    for column in ("class" if figures else "figure", *(METRICS.get(f, f) for f in figures)):
        table.add_column(column, justify="right" if table.columns else "left")
    for name in dict.fromkeys(name.partition("/")[2] for name in metrics if "/" in name):
        table.add_row(escape(name), *(score(metrics[f"{figure}/{name}"]) for figure in figures))
    if not figures:
        table.add_column("", justify="right")
        for name in others:
            table.add_row(METRICS.get(name, name), score(metrics[name]))
    return table


def score(value: float | None) -> str:
    """A figure as a table shows it."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
