"""Rows: what a run came to, a JSON object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geotune.bench.grid import RunSpec
from geotune.bench.local_executor import JobResult
from geotune.bench.suite import label_of
from geotune.training.run_dir import RunDir, nan_to_none
from geotune.utils.atomic import write_atomically

Row = dict[str, Any]

ROWS = "rows.jsonl"


def row_of(cell: RunSpec, run: Path, outcome: JobResult, found: Mapping[str, Any] | None) -> Row:
    """The row of a cell: what was chosen, the recipe's keys that this changes, and what came out.

    `found` is what a search found for it; without a metric where the run failed, and with its
    `error`.
    """
    row: Row = {
        "run": cell.name,
        "status": "done" if outcome.error is None else "failed",
        "recipe": cell.labels["recipe"],
        **(_keys(cell) | chosen(cell)),
        "search": found,
        "error": outcome.error,
    }
    if outcome.error is not None:
        return row
    folder = RunDir(run)
    metrics = folder.read_json("metrics")
    return {
        **row,
        "metrics": metrics["test"],
        "regions": metrics["regions"]["test"],
        "val": metrics["val"],
        "gap": metrics["gap"],
        "cost": _cost(folder, outcome),
    }


def chosen(cell: RunSpec) -> Row:
    """Where a cell stands in the grid: its labels by axis.

    A label that names a key's value is that value. That of a baseline is its name along the axis of
    the methods; along the others it tells beside what the baseline stands, whatever its own value.
    """
    return {
        axis: value if label_of(value := cell.changes.get(axis, label)) == label else label
        for axis, label in cell.labels.items()
        if axis not in ("seed", "fraction")  # the keys that they stand for are columns themselves
    }


def _keys(cell: RunSpec) -> Row:
    """Values by the recipe's keys that the suite sets; the method's kind and the seed always."""
    recipe = cell.recipe
    return {
        "method.kind": recipe.method.kind,
        "train.seed": recipe.train.seed,
        **_flat(cell.changes),
    }


def _flat(changes: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            flat[key] = value
    return flat


def _cost(folder: RunDir, outcome: JobResult) -> dict[str, Any]:
    """Memory in bytes, time in seconds, sizes, energy in joules.

    The time of a step is that of the fastest epoch, the one that other work on the machine held up
    least; an epoch's validation is in it. `training_bytes` is the peak above what the process had
    taken before the training.
    """
    summary = folder.read_json("run")
    memory = summary["peak_memory"]
    with folder.history.open(newline="", encoding="utf-8") as file:
        epochs = [(float(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    steps = [
        now - before for (now, _), (before, _) in zip(epochs, [(0.0, 0.0), *epochs], strict=False)
    ]
    return {
        "predicted_bytes": memory.get("predicted_bytes"),
        "tensor_bytes": memory.get("tracked_bytes"),
        "peak_bytes": memory["peak_bytes"],
        "training_bytes": memory["peak_bytes"] - memory["start_bytes"],
        "memory_kind": memory["kind"],
        "seconds_per_step": min(s / n for n, (_, s) in zip(steps, epochs, strict=True)),
        "seconds": summary["seconds"],
        "epochs": summary["epochs"],
        "trained_parameters": summary["trained_parameters"],
        "total_parameters": summary["total_parameters"],
        "adapter_bytes": summary["adapter_bytes"],
        "joules": outcome.joules,
        "device": summary["device"],
    }


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, whole or not at all; numbers that are not finite become null."""
    lines = [json.dumps(nan_to_none(row), ensure_ascii=False, default=str) for row in rows]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_rows(path: Path) -> list[Row]:
    """Rows that an earlier start has written; none where the file is gone or damaged.

    Everything in them but the energy can be made again from the run folders.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
