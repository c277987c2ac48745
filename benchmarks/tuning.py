"""What comparisons of tuning methods share: runs in processes of their own, and their table.

Every run is a `geotune fit` and a `geotune test` in a process of its own, so that its peak memory
is its own. Its time is that of the fastest epoch, the one that other work on the machine held up
least. Runs that the result holds already are not repeated. The result is written after every run,
with every single run beside mean and spread.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
METHODS = ("full", "frozen", "lora", "est")


@dataclass(frozen=True)
class Case:
    """A recipe with settings, on which methods are compared.

    Attributes:
        name: in the table.
        recipe: its file.
        metrics: the figures that count, the main one first; what ends in `/` is that of every
            class.
        keys: settings beside the recipe's.
    """

    name: str
    recipe: Path
    metrics: tuple[str, ...]
    keys: tuple[str, ...] = ()


def add_options(parser: ArgumentParser) -> None:
    """What every comparison may be told."""
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")


def compare(
    cases: Sequence[Case],
    what: str,
    path: Path,
    same: dict[str, Any],
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    runs: Path,
) -> None:
    """Run what `path` does not hold yet, and write it there.

    A method may have options, each after a plus; without a section's name they are the method's.
    What was run before counts where `same` is what it was.
    """
    rows = earlier(path, same)
    metrics = {case.name: case.metrics for case in cases}
    for seed in seeds:
        for case in cases:
            for method in methods:
                if any(key_of(row) == (case.name, method, seed) for row in rows):
                    continue
                rows.append(one_run(case, method, seed, overrides, runs))
                table = summarise([row for row in rows if row.get("case", "") in metrics], metrics)
                write(path, what, same, rows, table)
                show(table)


def key_of(row: dict[str, Any]) -> tuple[str, str, int]:
    """Which run a row is."""
    return row.get("case", ""), row["method"], row["seed"]


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
    case: Case, method: str, seed: int, overrides: Sequence[str], runs: Path
) -> dict[str, Any]:
    """Fit and test once."""
    names = [case.recipe.stem, *case.name.split(), method, str(seed)]
    run = runs / "-".join(names)
    kind, *chosen = method.split("+")
    chosen = [key if "." in key.partition("=")[0] else f"method.{key}" for key in chosen]
    keys = [*case.keys, f"method.kind={kind}", f"train.run={run}", f"train.seed={seed}"]
    fitted = geotune("fit", str(case.recipe), *keys, *chosen, *overrides)
    tested = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("test")
    if tested is None:
        tested = geotune("test", str(run))["metrics"]
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    summary = fitted["summary"]
    memory = summary["peak_memory"]
    return {
        **({"case": case.name} if case.name else {}),
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
        "random_weights": summary["backbone"]["random_weights"],
        "device": summary["device"],
        "versions": summary["versions"],
    }


def spread(values: list[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds; what has no value, as a class without an IoU, is
    left out.
    """
    known = [value for value in values if value is not None and not math.isnan(value)]
    return {
        "mean": statistics.mean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
    }


def summarise(
    rows: list[dict[str, Any]], metrics: dict[str, tuple[str, ...]]
) -> list[dict[str, Any]]:
    """One row a case and method; time beside `full` of the same seeds. `metrics` by case."""
    table = []
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key_of(row)[:2], []).append(row)
    for (case, method), runs in groups.items():
        names = [
            name
            for wanted in metrics[case]
            for name in runs[0]["test"]
            if name == wanted or (wanted.endswith("/") and name.startswith(wanted))
        ]
        row = {"case": case} if case else {}
        row |= {"method": method, "seeds": [run["seed"] for run in runs]}
        for part in ("val", "test"):
            row[part] = {name: spread([run[part].get(name) for run in runs]) for name in names}
        for name in ("peak_bytes", "training_bytes", "seconds_per_epoch"):
            row[name] = statistics.median(run[name] for run in runs)
        row["trained_parameters"] = runs[0]["trained_parameters"]
        row["adapter_bytes"] = runs[0]["adapter_bytes"]
        paired = [
            run["seconds_per_epoch"] / full["seconds_per_epoch"]
            for run in runs
            for full in groups.get((case, "full"), [])
            if full["seed"] == run["seed"]
        ]
        row["time_of_full"] = statistics.median(paired) if paired else None
        table.append(row)
    return table


def show(table: list[dict[str, Any]]) -> None:
    """Print the table as Markdown, cases of other figures apart."""
    heads = dict.fromkeys(tuple(row["test"]) for row in table)
    for names in heads:
        main = names[0]
        head = ["case", "method", *(f"test {name}" for name in names), f"val {main}"]
        head += ["memory", "s/epoch", "trained"]
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in table:
            if tuple(row["test"]) != names:
                continue
            cells = [row.get("case", ""), row["method"]]
            cells += [figure(row["test"][name]) for name in names] + [figure(row["val"][main])]
            cells += [
                f"{row['training_bytes'] / 1e6:.0f} MB",
                f"{row['seconds_per_epoch']:.1f}",
                f"{row['trained_parameters']:,}",
            ]
            print("| " + " | ".join(cells) + " |")


def figure(of: dict[str, float | None]) -> str:
    """Mean and spread, for people."""
    if of["mean"] is None:
        return "–"
    return f"{of['mean']:.3f}" + ("" if of["std"] is None else f" ± {of['std']:.3f}")


def earlier(path: Path, same: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that the result holds already, where they are of the same recipes and settings."""
    if not path.is_file():
        return []
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = before["runs"]
    return runs if all(before.get(key) == value for key, value in same.items()) else []


def write(
    path: Path,
    what: str,
    same: dict[str, Any],
    rows: list[dict[str, Any]],
    table: list[dict[str, Any]],
) -> None:
    """The result, with the machine and the versions."""
    path.parent.mkdir(exist_ok=True)
    result = {
        "what": what,
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
