"""Tree detection, evaluated by the metric published with the images.

    geotune bench --workers 2 recipes/suites/trees.yaml
    python benchmarks/urban_trees.py runs/bench/trees

The images are 221 of the 474 crops of J. Ventura et al. (arXiv 2208.10607), from five cities of
Southern California in 2020. The paper matches detections to trees one to one within six metres (ten
pixels, the default of the published code), at the threshold with the highest F1 in validation. The
suite uses three metres. Here every run is evaluated with both radii, each with its own threshold
from validation.

Results are written to `benchmarks/results/urban_trees.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from geotune.config import load_recipe
from geotune.data.window_datasets import GridWindowDataset
from geotune.factory.build_data import build_data
from geotune.factory.build_model import load_adapter
from geotune.model import Model
from geotune.tasks.detect import Detect
from geotune.training.loaders import make_loader
from geotune.training.run_dir import RunDir
from geotune.utils.precision import autocast

RESULTS = Path(__file__).parent / "results" / "urban_trees.json"
METRES = (3.0, 6.0)
PUBLISHED = {
    "source": "arXiv 2208.10607: Southern California in 2020, 474 crops",
    "radius_m": 6.0,
    "precision": 0.736,
    "recall": 0.733,
    "rmse_m": 2.16,
}
Prediction = tuple[Any, Any]
METRICS = (
    "f1", "precision", "recall", "rmse_m", "threshold", "count_mae", "count_rmse", "count_bias",
)  # fmt: skip


def evaluate(run: Path) -> list[dict[str, Any]]:
    """Test metrics of a finished run, a row per matching radius."""
    recipe, _ = load_recipe(RunDir(run).recipe)
    data = build_data(recipe)
    built = load_adapter(run)
    assert isinstance(built.task, Detect) and data.test is not None
    predict = partial(predictions, built.model, precision=recipe.train.precision)
    validation, test = predict(data.val), predict(data.test)
    rows = []
    for metres in METRES:
        task = copy(built.task)
        task.match_radius_m = metres
        best = metrics_of(task, validation)["threshold"]
        metrics = metrics_of(task.with_score_threshold(dict.fromkeys(task.classes, best)), test)
        row = {
            "method": recipe.method.kind,
            "epochs": recipe.train.epochs,
            "cache": recipe.train.cache,
            "seed": recipe.train.seed,
            "radius_m": metres,
        }
        rows.append(row | {name: metrics[name] for name in METRICS})
    return rows


def predictions(model: Model, windows: GridWindowDataset, precision: str) -> list[Prediction]:
    """Outputs and targets of each window."""
    model.eval()
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        return [
            (model(**batch.inputs), batch.targets) for batch in make_loader(windows, 1, workers=0)
        ]


def metrics_of(task: Detect, windows: list[Prediction]) -> dict[str, float]:
    """Metrics at the task's score threshold, or at the best one if the task has none."""
    metrics = task.metrics()
    for outputs, targets in windows:
        metrics.update(outputs, targets)
    return metrics.compute()


def main() -> int:
    """Evaluate all runs and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", type=Path, help="the folder of the suite's results")
    parser.add_argument("--workers", type=int, default=1, help="number of parallel evaluations")
    args = parser.parse_args()
    runs = sorted(path.parent for path in args.suite.glob("runs/*/*/adapter.json"))
    if not runs:
        print(f"{args.suite}: no finished run; run the suite first", file=sys.stderr)
        return 1
    rows = []
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for run, run_rows in zip(runs, pool.map(evaluate, runs), strict=True):
            rows += run_rows
            for row in run_rows:
                print(f"{run.name}: within {row['radius_m']:g} m F1 {row['f1']:.3f} (precision "
                      f"{row['precision']:.3f}, recall {row['recall']:.3f}), "
                      f"count error {row['count_mae']:.1f}", flush=True)  # fmt: skip
    record = {
        "what": "urban trees detected as points, matched within 3 m and within 6 m (as published)",
        "date": datetime.date.today().isoformat(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("geotune", "torch")},
        "published": PUBLISHED,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
