"""Tuning methods on a recipe's data: IoU, peak memory, time and trained parameters, over seeds.

    python benchmarks/segmentation.py recipes/ships.yaml
    python benchmarks/segmentation.py recipes/clouds.yaml --seeds 0 1 2 --methods full est
    python benchmarks/segmentation.py recipes/ships.yaml --seeds 0 --name est_options \
        --methods est est+every=2 est+fuse=sum est+train.lr=1e-3

A method may have options, each after a plus; without a section's name they are the method's.

Every run is a `geotune fit` and a `geotune test` in a process of its own, so that its peak memory
is its own. Its time is that of the fastest epoch, the one that other work on the machine held up
least. Runs that the result holds already are not repeated. The table goes to
benchmarks/results/segmentation_<recipe>.json, with every single run beside mean and spread.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
METHODS = ("full", "frozen", "lora", "est")


def geotune(*words: str) -> dict[str, Any]:
    """Run a command with --json in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "geotune", *words, "--json"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"geotune {' '.join(words)}: {done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def one_run(
    recipe: Path, method: str, seed: int, overrides: list[str], runs: Path
) -> dict[str, Any]:
    """Fit and test once."""
    run = runs / f"{recipe.stem}-{method}-{seed}"
    kind, *chosen = method.split("+")
    chosen = [key if "." in key.partition("=")[0] else f"method.{key}" for key in chosen]
    keys = [f"method.kind={kind}", f"train.run={run}", f"train.seed={seed}", *chosen, *overrides]
    fitted = geotune("fit", str(recipe), *keys)
    tested = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("test")
    if tested is None:
        tested = geotune("test", str(run))["metrics"]
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    summary = fitted["summary"]
    memory = summary["peak_memory"]
    return {
        "method": method,
        "seed": seed,
        "val": fitted["metrics"],
        "test": tested,
        "best_epoch": summary["best_epoch"],
        "peak_bytes": memory["peak_bytes"],
        "training_bytes": memory["peak_bytes"] - memory["start_bytes"],
        "seconds_per_epoch": min(epochs),
        "trained_parameters": summary["trained_parameters"],
        "adapter_bytes": summary["adapter_bytes"],
        "device": summary["device"],
        "versions": summary["versions"],
    }


def spread(values: list[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds; classes without an IoU are left out."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return {
        "mean": statistics.mean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method; time and memory beside `full` of the same seeds."""
    table = []
    by_method = {
        m: [r for r in rows if r["method"] == m] for m in dict.fromkeys(r["method"] for r in rows)
    }
    for method, runs in by_method.items():
        names = [n for n in runs[0]["test"] if n == "miou" or n.startswith("iou/")]
        row: dict[str, Any] = {"method": method, "seeds": [run["seed"] for run in runs]}
        for part in ("val", "test"):
            row[part] = {name: spread([run[part].get(name) for run in runs]) for name in names}
        for name in ("peak_bytes", "training_bytes", "seconds_per_epoch"):
            row[name] = statistics.median(run[name] for run in runs)
        row["trained_parameters"] = runs[0]["trained_parameters"]
        row["adapter_bytes"] = runs[0]["adapter_bytes"]
        paired = [
            run["seconds_per_epoch"] / full["seconds_per_epoch"]
            for run in runs
            for full in by_method.get("full", [])
            if full["seed"] == run["seed"]
        ]
        row["time_of_full"] = statistics.median(paired) if paired else None
        table.append(row)
    return table


def show(table: list[dict[str, Any]]) -> None:
    """Print the table as Markdown."""
    names = [name for name in table[0]["test"]]
    head = [
        "method",
        *(f"test {name}" for name in names),
        "val miou",
        "memory",
        "s/epoch",
        "trained",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in table:
        cells = [row["method"]]
        for figure in [*(row["test"][name] for name in names), row["val"]["miou"]]:
            mean, std = figure["mean"], figure["std"]
            cells.append(
                "–"
                if mean is None
                else f"{mean:.3f}" + (f" ± {std:.3f}" if std is not None else "")
            )
        cells += [
            f"{row['training_bytes'] / 1e6:.0f} MB",
            f"{row['seconds_per_epoch']:.1f}",
            f"{row['trained_parameters']:,}",
        ]
        print("| " + " | ".join(cells) + " |")


def earlier(path: Path, same: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that the result holds already, where they are of the same recipe and settings."""
    if not path.is_file():
        return []
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = before["runs"]
    return runs if all(before[key] == value for key, value in same.items()) else []


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--name", help="of the result; by default the recipe's")
    options = parser.parse_args()
    path = RESULTS / f"segmentation_{options.name or options.recipe.stem}.json"
    same = {"recipe": options.recipe.read_text(encoding="utf-8"), "set": options.overrides}
    rows = earlier(path, same)
    for seed in options.seeds:
        for method in options.methods:
            if any((row["method"], row["seed"]) == (method, seed) for row in rows):
                continue
            rows.append(one_run(options.recipe, method, seed, options.overrides, options.runs))
            table = summarise(rows)
            RESULTS.mkdir(exist_ok=True)
            result = {
                "what": "tuning methods on the same data, decoder and steps",
                **same,
                "date": date.today().isoformat(),
                "machine": {
                    "system": platform.system(),
                    "processor": platform.machine(),
                    "cores": os.cpu_count(),
                    "device": rows[0]["device"],
                },
                "versions": rows[0]["versions"],
                "table": table,
                "runs": rows,
            }
            path.write_text(json.dumps(result, indent=1), encoding="utf-8")
            show(table)


if __name__ == "__main__":
    main()
