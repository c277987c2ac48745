"""Rows of runs and their columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geotune.api.fitting import fit
from geotune.api.testing import test as judge_run
from geotune.bench.grid import expand
from geotune.bench.local_executor import JobResult
from geotune.bench.results import row_of
from geotune.bench.suite import RESERVED, read_suite

Write = Callable[..., Path]

RESULTS = {"run", "status", "search", "error"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of failed runs, which have only labels and keys."""
    specs = expand(read_suite(path))[0]
    return [row_of(spec, path, JobResult("no"), None) for spec in specs]


def test_grid_keys_are_columns(suite: Write) -> None:
    path = suite(
        grid={
            "train.lr": [1e-3, 1e-2],
            "size": {"small": {"train.batch_size": 2, "decoder": {"kind": "fcn", "channels": 8}}},
        },
        seeds=[7],
        fractions=[0.5],
        baselines=None,
    )
    first, second = rows_of(path)
    assert {k: v for k, v in first.items() if k not in RESULTS} == {
        "recipe": "tiny",
        "method": "est",
        "method.kind": "est",
        "train.seed": 7,
        "train.lr": 1e-3,
        "size": "small",
        "train.batch_size": 2,
        "decoder.kind": "fcn",
        "decoder.channels": 8,
        "data.fraction": 0.5,
    }
    assert second["train.lr"] == 1e-2


def test_method_and_seed_are_always_columns(suite: Write) -> None:
    [row] = rows_of(suite(baselines=None))
    assert (row["method.kind"], row["train.seed"]) == ("est", 0)


def test_recipe_method_and_seed_identify_runs(suite: Write) -> None:
    rows = rows_of(suite(grid={"method.kind": ["full", "est"]}, seeds=[0, 1]))
    actual = {(row["recipe"], row["method.kind"], row["train.seed"]) for row in rows}
    assert len(actual) == len(rows) == 8
    assert ("tiny", "unet_from_scratch", 0) in actual


def test_baseline_has_a_row_per_label_of_other_axes(suite: Write) -> None:
    rows = rows_of(suite(grid={"method.kind": ["est"], "decoder.kind": ["linear", "fcn"]}))
    scratch = [row for row in rows if row["method.kind"] == "unet_from_scratch"]
    assert [row["decoder.kind"] for row in scratch] == ["linear", "fcn"]
    assert len({row["run"] for row in scratch}) == 1


def test_column_names_are_reserved(suite: Write, tmp_path: Path) -> None:
    [spec] = expand(read_suite(suite(baselines=None)))[0]
    fit(spec.recipe, run=tmp_path / "run")
    judge_run(tmp_path / "run")
    for result in (JobResult("no"), JobResult()):
        row = row_of(spec, tmp_path / "run", result, None)
        assert {name for name in row if "." not in name} - {spec.axis} <= set(RESERVED)
        assert ("cost" in row) == (result.error is None)
