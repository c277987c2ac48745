"""Results of runs, stored as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geotune.bench.grid import RunSpec
from geotune.bench.local_executor import JobResult
from geotune.bench.suite import label_of
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.json_values import nan_to_none
from geotune.utils.text import join_some

Row = dict[str, Any]

ROWS = "rows.jsonl"


def row_of(spec: RunSpec, run: Path, result: JobResult, searched: Mapping[str, Any] | None) -> Row:
    """The row of a run: its labels, the recipe keys that it sets, and its results.

    `searched` is the result of its search. A failed run has an `error` instead of metrics.
    """
    row: Row = {
        "run": spec.name,
        "status": "done" if result.error is None else "failed",
        "recipe": spec.labels["recipe"],
        **(_keys(spec) | grid_labels(spec)),
        "search": searched,
        "error": result.error,
    }
    if result.error is not None:
        return row
    folder = RunDir(run)
    metrics, summary = folder.read_json("metrics"), folder.read_json("run")
    return {
        **row,
        "code": summary.get("code"),
        "commit": summary.get("commit"),
        "metrics": metrics["test"],
        "regions": metrics["regions"]["test"],
        "val": metrics["val"],
        "gap": metrics["gap"],
        "cost": _cost(folder, summary, result),
    }


def grid_labels(spec: RunSpec) -> Row:
    """The labels of a run by axis; labels that name the value of a key become that value.

    A baseline has its name on the compared axis, and on the others the labels of its context,
    whatever its own values are.
    """
    return {
        axis: value if label_of(value := spec.changes.get(axis, label)) == label else label
        for axis, label in spec.labels.items()
        if axis not in ("seed", "fraction")  # their keys are columns already
    }


def _keys(spec: RunSpec) -> Row:
    """The recipe keys that the suite sets, and always the method's kind and the seed."""
    recipe = spec.recipe
    return {
        "method.kind": recipe.method.kind,
        "train.seed": recipe.train.seed,
        **_flat(spec.changes),
    }


def _flat(changes: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            flat[key] = value
    return flat


def _cost(folder: RunDir, summary: Mapping[str, Any], result: JobResult) -> dict[str, Any]:
    """Memory and sizes in bytes, time in seconds, energy in joules.

    The step time is that of the fastest epoch, which other processes disturbed least, including
    its validation, if it has one. `training_bytes` is the peak minus the memory in use before the
    training.
    """
    memory = summary["peak_memory"]
    epochs = [(row["step"], row["seconds"]) for row in folder.read_history()]
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
        "joules": result.joules,
        "device": summary["device"],
    }


def check_same_code(rows: Iterable[Row], path: Path, current: str | None = None) -> None:
    """Raise `GeotuneError` if finished rows come from different code, or not from `current`."""
    runs: dict[str, list[str]] = {} if current is None else {current: []}
    for row in rows:
        if row["error"] is None:
            runs.setdefault(row.get("code") or "unknown code", []).append(row["run"])
    if len(runs) > 1:
        versions = "; ".join(
            f"{code}: {join_some(names, 3) if names else 'installed now'}"
            for code, names in runs.items()
        )
        raise GeotuneError(
            f"{path}: runs come from different versions of geotune's code ({versions}); expected "
            "one; remove the older runs to repeat them, or set compare.mixed_code: true",
            code="suite-code-mixed",
            key="compare.mixed_code",
            file=path,
        )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows atomically; non-finite numbers become null."""
    lines = [json.dumps(nan_to_none(row), ensure_ascii=False, default=str) for row in rows]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier start; empty if the file is missing or damaged.

    All values except the energy can be restored from the run folders.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
