"""`geotune demo`."""

from __future__ import annotations

from pathlib import Path

from geotune.cli.console import Json, err, message, out, print_json
from geotune.cli.metrics_table import metrics_table


def demo(folder: Path = Path("geotune-demo"), *, as_json: Json = False) -> None:
    """Run the full workflow on synthetic scenes: train, test, predict, report.

    Parameters
    ----------
    folder
        Output folder.
    """
    from geotune.api.demo_workflow import run_demo

    result = run_demo(folder, on_message=message, console=err())
    if as_json:
        print_json(result)
        return
    out().print(metrics_table("test", result["metrics"]))
    for label in ("recipe", "adapter", "map", "polygons", "report"):
        out().print(f"{label}: {result[label]}")
