"""A table of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geotune.cli.console import escape
from geotune.utils.headline import lowest_class
from geotune.utils.metric_names import metric_name, score

if TYPE_CHECKING:
    from rich.table import Table


def metrics_table(
    split: str, metrics: dict[str, Any], thresholds: Sequence[Mapping[str, Any]] = ()
) -> Table:
    """A table titled by the lowest class and the main (first) metric; rows by class, or metrics.

    `thresholds` are `class_thresholds` of `metrics.json`, for a further column.
    """
    from rich.table import Table

    main, *others = (name for name in metrics if "/" not in name)
    lowest = lowest_class(metrics, main)
    first = "" if lowest is None else f"{metric_name(lowest[0])} of {lowest[1]} "
    first += "" if lowest is None else f"{score(lowest[2])} (lowest class), "
    title = f"{split}: {first}{metric_name(main)} {score(metrics[main])}"
    table = Table(title=escape(title), title_justify="left", box=None)
    names = list(dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name))
    for column in ("class" if names else "metric", *(metric_name(n) for n in names)):
        table.add_column(column, justify="right" if table.columns else "left")
    chosen = {one["class"]: f"{score(one['iou'])} ({one['threshold']:g})" for one in thresholds}
    if chosen:
        table.add_column("IoU (threshold)", justify="right")
    for cls in dict.fromkeys(name.partition("/")[2] for name in metrics if "/" in name):
        values = (score(metrics[f"{name}/{cls}"]) for name in names)
        table.add_row(escape(cls), *values, *([chosen.get(cls, "")] if chosen else []))
    if not names:
        table.add_column("", justify="right")
        for name in others:
            table.add_row(metric_name(name), score(metrics[name]))
    return table
