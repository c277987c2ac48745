"""Accuracy with frozen weights in lower precision: finished runs, tested with each precision.

    python benchmarks/frozen_precision.py runs/ships-est-0 runs/ships-est-1 runs/clouds-est-0

A copy of every run is tested by `geotune test` with frozen weights in float32, bfloat16 and int8;
trained tensors are unchanged. The runs come from `geotune fit` with any `method.frozen_precision`,
which is recorded in the row. The main metric of each run is written to
benchmarks/results/frozen_precision.json, with the mean paired difference to bfloat16 by recipe.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "frozen_precision.json"
PRECISIONS = ("fp32", "bf16", "int8")
PROMISED = 0.005
Row = dict[str, Any]


def tested(run: Path, precision: str) -> dict[str, float]:
    """Test metrics of a copy of the run with frozen weights in this precision."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / run.name
        shutil.copytree(run, copied)
        config = json.loads((copied / "adapter.json").read_text(encoding="utf-8"))
        config["method"]["frozen_precision"] = precision
        (copied / "adapter.json").write_text(json.dumps(config), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "geotune", "test", str(copied), "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"geotune test {copied}: {done.stdout}")
    metrics: dict[str, float] = json.loads(done.stdout)["metrics"]
    return metrics


def measured(run: Path, metric: str) -> Row:
    """One run in every precision."""
    config = json.loads((run / "adapter.json").read_text(encoding="utf-8"))
    trained = config["method"].get("frozen_precision", "fp32")
    row: Row = {"run": run.name, "recipe": run.name.partition("-")[0], "trained_with": trained}
    return row | {precision: tested(run, precision)[metric] for precision in PRECISIONS}


def compared(rows: list[Row]) -> Row:
    """Losses against bfloat16, by recipe and precision of the training."""
    result: Row = {}
    groups = {(row["recipe"], row["trained_with"]) for row in rows}
    for recipe, trained in sorted(groups):
        chosen = [r for r in rows if (r["recipe"], r["trained_with"]) == (recipe, trained)]
        losses = [row["bf16"] - row["int8"] for row in chosen]
        result[f"{recipe}, trained with {trained}"] = {
            "runs": len(chosen),
            "mean": {name: statistics.mean(row[name] for row in chosen) for name in PRECISIONS},
            "int8_loses": {"mean": statistics.mean(losses), "max": max(losses)},
            "promised": PROMISED,
            "met": max(losses) <= PROMISED,
        }
    return result


def main() -> None:
    """Read the command line, test the runs, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs with a test split")
    parser.add_argument("--metric", default="miou")
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        rows.append(measured(run, options.metric))
        print(json.dumps(rows[-1]), flush=True)
        result = {
            "what": f"{options.metric} of the test split by the precision of the frozen weights",
            "date": date.today().isoformat(),
            "versions": {"torch": version("torch")},
            "compared": compared(rows),
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["compared"], indent=1))


if __name__ == "__main__":
    main()
