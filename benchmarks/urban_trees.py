"""Trees found by the suite's runs, by the measure that was published with their images.

    geotune bench --workers 2 recipes/suites/trees.yaml
    python benchmarks/urban_trees.py runs/bench/trees

The images are some of those of J. Ventura et al., arXiv 2208.10607: 221 crops of five cities of
Southern California in 2020, of which that paper has 474. It counts a tree as found by a detection
within six metres (ten pixels, the published code's default), one to one, at the threshold with the
highest F1 in validation. The suite asks for three metres; here every run is judged by both, each at
the threshold of its own validation, on which alone the counts of trees depend.

The figures go to `benchmarks/results/urban_trees.json`.
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
    "match_radius_m": 6.0,
    "precision": 0.736,
    "recall": 0.733,
    "rmse_m": 2.16,
}
Answer = tuple[Any, Any]
FIGURES = (
    "f1", "precision", "recall", "rmse_m", "threshold", "count_mae", "count_rmse", "count_bias",
)  # fmt: skip


def judged(run: Path) -> list[dict[str, Any]]:
    """A finished run's figures in the test, by the distance within which a tree counts as found."""
    recipe, _ = load_recipe(RunDir(run).recipe)
    data = build_data(recipe)
    built = load_adapter(run)
    assert isinstance(built.task, Detect) and data.test is not None
    answer = partial(answers, built.model, precision=recipe.train.precision)
    validation, test = answer(data.val), answer(data.test)
    rows = []
    for metres in METRES:
        task = copy(built.task)
        task.match_radius_m = metres
        best = figures(task, validation)["threshold"]
        tested = figures(task.with_score_threshold(dict.fromkeys(task.classes, best)), test)
        told = {"epochs": recipe.train.epochs, "cache": recipe.train.cache}
        row = {"method": recipe.method.kind, **told, "seed": recipe.train.seed, "radius_m": metres}
        rows.append(row | {name: tested[name] for name in FIGURES})
    return rows


def answers(model: Model, windows: GridWindowDataset, precision: str) -> list[Answer]:
    """What the model finds in each window, and what is there."""
    model.eval()
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        return [
            (model(**batch.inputs), batch.targets) for batch in make_loader(windows, 1, workers=0)
        ]


def figures(task: Detect, found: list[Answer]) -> dict[str, float]:
    """Without a threshold of the task's at the best one."""
    metrics = task.metrics()
    for outputs, targets in found:
        metrics.update(outputs, targets)
    return metrics.compute()


def main() -> int:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", type=Path, help="the folder of the suite's results")
    parser.add_argument("--workers", type=int, default=1, help="runs that are judged at once")
    args = parser.parse_args()
    runs = sorted(path.parent for path in args.suite.glob("runs/*/*/adapter.json"))
    if not runs:
        print(f"{args.suite}: no finished run in it; first run the suite", file=sys.stderr)
        return 1
    rows = []
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for run, its in zip(runs, pool.map(judged, runs), strict=True):
            rows += its
            for row in its:
                print(f"{run.name}: within {row['radius_m']:g} m F1 {row['f1']:.3f} (precision "
                      f"{row['precision']:.3f}, recall {row['recall']:.3f}), "
                      f"count off by {row['count_mae']:.1f}", flush=True)  # fmt: skip
    record = {
        "what": "urban trees found as points, by the published measure and within three metres",
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
