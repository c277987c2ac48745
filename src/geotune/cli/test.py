"""`geotune test`."""

from __future__ import annotations

import math
from pathlib import Path

from geotune.cli.console import Json, escape, message, out, print_json, print_table, show_progress
from geotune.cli.metrics_table import metrics_table
from geotune.cli.shared_options import ModelFiles
from geotune.utils.metric_names import metric_name, score


def test(
    run: Path,
    *,
    model: ModelFiles = ModelFiles(),
    as_json: Json = False,
) -> None:
    """Compute the metrics of a run on its test split, by class and by region.

    Parameters
    ----------
    run
        The run folder.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.testing import test as test_run
        result = test_run(
            run,
            **vars(model),
            on_message=message,
            on_progress=on_progress,
        )
    if as_json:
        print_json({"run": str(run), **result})
        return
    thresholds = result.get("class_thresholds", ())
    print_table(metrics_table("test", result["metrics"], thresholds))
    if thresholds:
        out().print("threshold: chosen in validation, for geotune predict --threshold CLASS=auto")
    main = next(iter(result["metrics"]))
    for region, metrics in result["regions"].items():
        out().print(f"{escape(region)}: {metric_name(main)} {score(metrics[main])}")
    if (gap := result["gap"]) is not None:
        seen, unseen = gap["seen"][main], gap["unseen"][main]
        low, high = gap["intervals"][main]
        out().print(
            f"{metric_name(main)} in regions not seen in training {score(unseen)}, in "
            f"seen regions ({gap['seen_in']} scenes) {score(seen)}: {unseen - seen:+.3f}"
            f"{_between(low, high, gap['units'])}"
        )
    out().print(f"report: {escape(str(run / 'report.html'))}")


def _between(low: float, high: float, units: str) -> str:
    """The interval of a difference; empty if it is unknown."""
    if math.isnan(low + high):
        return ""
    return f" (95 % interval over {units}: {low:+.3f} to {high:+.3f})"
