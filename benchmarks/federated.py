"""Three sites that share adapters only: federated against each site alone and against all data.

    python benchmarks/federated.py                       # resumes
    python benchmarks/federated.py --folder runs/federated

A site has two harbours of `recipes/ships.yaml`, one to train on and one to validate. Busan and
Durban, which no site has, are the test. Every way gets the same passes over each image:

- alone: each site trains by itself;
- federated: rounds of a few epochs at each site, then the average (`geotune average`), as in the
  Flower app (docs/how-to/federated.md), without the network between the sites;
- pooled: all images at one place, which federation is meant to make unnecessary.

All use the mean and deviation of the first site's bands, so that equal tensors mean the same. The
result is the IoU of ships over both test harbours, of every seed, and the differences of federated
to the others, with 95 % intervals over the seeds alone (Student's t). Two harbours are too few to
say what holds elsewhere. Written to `benchmarks/results/federated.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from geotune.api.averaging import average
from geotune.api.fitting import fit
from geotune.api.testing import validate
from geotune.config import Recipe, load_recipe, parse_recipe
from geotune.factory.build_data import build_data
from geotune.training.run_dir import RunDir

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "federated.json"
SHIPS = "../shared/data/ships/{}.tif"
SITES = {
    "one": ("algiers", "athens"),
    "two": ("honolulu", "casablanca"),
    "three": ("klang", "cartagena"),
}
"""The training and the validation harbour of each site."""
TEST = ("busan", "durban")
SEEDS = (0, 1, 2)
ROUNDS, EPOCHS = 4, 3
SAMPLES = 128
"""Windows of a site in an epoch."""
METRIC = "iou/ship"
LEVEL = 0.95
Moments = dict[str, tuple[float, float]]


def recipe_of(
    sites: Sequence[str], seed: int, *, moments: Moments | None, val: Sequence[str] = ()
) -> Recipe:
    """`recipes/ships.yaml` on the harbours of some sites, or validated on `val`."""
    recipe, _ = load_recipe(ROOT / "recipes" / "ships.yaml")
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_unset=True)
    train = [SITES[site][0] for site in sites]
    val = [*(val or (SITES[site][1] for site in sites))]
    values["backbone"]["gsd"] = 10.0  # without it, each site has the pixel size of its images
    values["decoder"]["channels"] = [48, 32, 24, 16]
    values["data"] |= {
        "scenes": [SHIPS.format(name) for name in (*train, *val)],
        "window": 64,
        "samples": SAMPLES * len(sites),
        "split": {"kind": "group", "by": "scene", "val": val},
    }
    if moments is not None:
        values["data"]["normalize"] = moments
    values["train"] |= {"epochs": ROUNDS * EPOCHS, "batch_size": 8, "seed": seed}
    return parse_recipe(values)


def site_moments() -> Moments:
    """Mean and deviation of each band in the training harbour of the first site."""
    statistics = build_data(recipe_of(["one"], 0, moments=None)).statistics
    pairs = zip(statistics.mean, statistics.std, strict=True)
    return dict(zip(statistics.bands, pairs, strict=True))


def tested(adapter: Path, seed: int, moments: Moments) -> float:
    """The metric over both test harbours."""
    metrics, _ = validate(recipe_of(["one"], seed, moments=moments, val=TEST), adapter)
    return metrics[METRIC]


def trained(
    sites: Sequence[str], seed: int, moments: Moments, run: Path, *overrides: str
) -> tuple[Path, int]:
    """The run of a training, which is resumed or kept, and its number of windows."""
    result = fit(recipe_of(sites, seed, moments=moments), overrides, run=run)
    return result.run, result.summary["data"]["windows"]["train"]


def federated(seed: int, moments: Moments, folder: Path) -> list[float]:
    """The metric of the average after each round."""
    mean: Path | None = None
    values = []
    for number in range(1, ROUNDS + 1):
        start = [] if mean is None else [f"train.start_from={mean}"]
        runs = [
            trained([site], seed, moments, folder / f"round{number}_{site}", *start,
                    f"train.epochs={EPOCHS}")
            for site in SITES
        ]  # fmt: skip
        mean = folder / f"mean{number}"
        if not mean.is_dir():
            average([run for run, _ in runs], mean, weights=[count for _, count in runs])
        values.append(tested(mean, seed, moments))
    return values


def measure(seed: int, moments: Moments, folder: Path) -> dict[str, Any]:
    """The row of a seed."""
    alone = {
        site: tested(trained([site], seed, moments, folder / f"alone_{site}")[0], seed, moments)
        for site in SITES
    }
    pooled, _ = trained([*SITES], seed, moments, folder / "pooled")
    rounds = federated(seed, moments, folder)
    adapter_bytes = RunDir(pooled).read_json("run")["adapter_bytes"]
    return {
        "seed": seed,
        "alone": alone,
        "pooled": tested(pooled, seed, moments),
        "federated": rounds[-1],
        "federated_rounds": rounds,
        "adapter_bytes": adapter_bytes,
    }


def difference(rows: list[dict[str, Any]], other: list[float]) -> dict[str, Any]:
    """Mean difference of federated to another way, and its interval over the seeds."""
    values = np.array([row["federated"] for row in rows]) - other
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    mean = float(values.mean())
    return {"mean": mean, "low": mean - float(half), "high": mean + float(half)}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/federated"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    moments = site_moments()
    rows = []
    for seed in options.seeds:
        rows.append(measure(seed, moments, options.folder / f"seed{seed}"))
        print(json.dumps(rows[-1]), flush=True)
    found: dict[str, Any] = {
        "recipe": "recipes/ships.yaml",
        "metric": METRIC,
        "sites": SITES,
        "test": TEST,
        "rounds": ROUNDS,
        "epochs_per_round": EPOCHS,
        "samples_per_site": SAMPLES,
        "rows": rows,
    }
    if len(rows) > 1:
        means = [float(np.mean([*row["alone"].values()])) for row in rows]
        found["federated_minus_mean_of_sites_alone"] = difference(rows, means)
        best = [max(row["alone"].values()) for row in rows]
        found["federated_minus_best_site_alone_by_test"] = difference(rows, best)
        found["federated_minus_pooled"] = difference(rows, [row["pooled"] for row in rows])
    found |= {
        "versions": {name: version(name) for name in ("geotune", "torch")},
        "machine": platform.machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
