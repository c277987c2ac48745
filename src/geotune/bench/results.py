"""Results of runs, stored as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import with_best
from geotune.bench.local_executor import JobResult
from geotune.bench.suite import Search, label_of
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.json_values import nan_to_none
from geotune.utils.text import join_some

Row = dict[str, Any]

ROWS, RUNS, TRIALS = "rows.jsonl", "runs", "search"
"""Results, run folders and trials of searches, in the folder of a suite."""


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


def check_same_code(runs: Mapping[str, str | None], path: Path, current: str | None = None) -> None:
    """Raise `GeotuneError` if the code differs between runs, or is not `current`.

    Args:
        runs: the code of each finished run, None if it is unknown, by its name.
        path: the file or folder to name.
        current: the code of the runs to come.
    """
    by_code: dict[str, list[str]] = {} if current is None else {current: []}
    for name, code in runs.items():
        by_code.setdefault(code or "unknown code", []).append(name)
    if len(by_code) > 1:
        versions = "; ".join(
            f"{code}: {join_some(names, 3) if names else 'installed now'}"
            for code, names in by_code.items()
        )
        raise GeotuneError(
            f"{path}: runs come from different versions of geotune's code ({versions}); expected "
            f"one; delete the folders of the older ones, and their lines in {ROWS}, to repeat "
            "them, or set compare.mixed_code: true",
            code="suite-code-mixed",
            key="compare.mixed_code",
            file=path,
        )


def check_same_recipes(
    folder: Path, results: Iterable[tuple[RunSpec, Row]], searches: Mapping[str, Search]
) -> None:
    """Raise `GeotuneError` if finished runs had other recipes than the suite has now."""
    changed = {
        spec.name: changes
        for spec, row in results
        if row["error"] is None and (changes := _changes(folder, spec, row, searches))
    }
    if changed:
        name, changes = next(iter(changed.items()))
        more = f"; so were {join_some([*changed][1:], 3)}" if len(changed) > 1 else ""
        raise GeotuneError(
            f"{folder / ROWS}: {name} was trained with another recipe than the suite has now "
            f"({join_some(changes, 3)}){more}; run the suite for these runs again, or restore its "
            "values",
            code="suite-results-changed",
            file=folder / ROWS,
        )


def _changes(
    folder: Path, spec: RunSpec, row: Row, searches: Mapping[str, Search]
) -> Sequence[str]:
    search, found = searches.get(spec.labels["recipe"]), row.get("search")
    if search is not None and found is not None:
        spec = with_best(search, spec, found["value"])
    run = RunDir(folder / RUNS / spec.name)
    if run.recipe.is_file():
        try:
            return run.differences(run.with_saved_defaults(spec.recipe))
        except GeotuneError:  # a recipe of an older version
            pass
    keys = json.loads(json.dumps(nan_to_none(_keys(spec) | grid_labels(spec)), default=str))
    return [
        f"{key}: {row[key]} → {value}"
        for key, value in keys.items()
        if key in row and row[key] != value
    ]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows atomically; non-finite numbers become null."""
    lines = [json.dumps(nan_to_none(row), ensure_ascii=False, default=str) for row in rows]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier start; empty if there is no file.

    Raises `GeotuneError` for a damaged line. All values except the energy can be restored from the
    run folders.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error}); delete it: the suite reads its runs again",
            code="file-unreadable",
            file=path,
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"run", "error"} <= row.keys():
            raise GeotuneError(
                f"{path}: line {number} is not the result of a run ({line[:40]}...); delete this "
                "line: running the suite restores it from the run's folder",
                code="file-unreadable",
                file=path,
            )
        rows.append(row)
    return rows
