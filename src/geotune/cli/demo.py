"""`geotune demo`."""

from __future__ import annotations

from pathlib import Path

from geotune.cli.console import Json, err, out, print_json, say
from geotune.cli.metrics_table import metrics_table


def demo(folder: Path = Path("geotune-demo"), *, as_json: Json = False) -> None:
    """The whole of it on scenes that geotune makes itself: train, test, map, report.

    Parameters
    ----------
    folder
        Where everything goes.
    """
    from geotune.api.demo_workflow import run_demo

    result = run_demo(folder, say=say, console=err())
    if as_json:
        print_json(result)
        return
    out().print(metrics_table("test", result["metrics"]))
    for label in ("recipe", "adapter", "map", "polygons", "report"):
        out().print(f"{label}: {result[label]}")
