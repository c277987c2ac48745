"""Aggregation of runs, differences and gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.bench import analysis
from geotune.bench.analysis import (
    COSTS,
    ComparisonTable,
    MethodSummary,
    Repeat,
    _Draws,
    _gaps,
    _Runs,
    compare,
)
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.runner import RUNS
from geotune.bench.suite import Compare, Suite, read_suite
from geotune.training.window_metrics import WindowMetrics
from helpers.errors import raises
from helpers.resampling import mean_of, windows

Write = Callable[..., Path]
Tables = Callable[..., list[ComparisonTable]]

OBJECTIVES = {"tiny": Objective("mean", lower=False)}
COST = dict.fromkeys([*COSTS, "tensor_bytes"], 1.0) | {"memory_kind": "process memory"}
GAPS = {"bern": -0.1, "lima": -0.2, "oslo": -0.3}


@pytest.fixture
def held_out(suite: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """Two methods, three cities held out in turn, two seeds."""
    monkeypatch.setattr(analysis, "_metric_function", lambda run: mean_of)
    path = suite(
        grid={
            "method.kind": ["full", "est"],
            "city": {city: {"train.lr": 1e-3 * (i + 1)} for i, city in enumerate(GAPS)},
        },
        seeds=[0, 1],
        baselines=None,
    )
    return read_suite(path)


@pytest.fixture
def tables_of(held_out: Suite, tmp_path: Path) -> Tables:
    """Builds the tables from the window values of each run; None is a failed run."""

    def tables(
        metrics: Callable[[RunSpec], np.ndarray | None], **options: Any
    ) -> list[ComparisonTable]:
        specs = expand(held_out)[0]
        rows = [_row(tmp_path, spec, metrics(spec)) for spec in specs]
        return compare(specs, rows, OBJECTIVES, Compare(draws=400, **options), tmp_path)

    return tables


def _row(folder: Path, spec: RunSpec, values: np.ndarray | None) -> Row:
    if values is None:
        return {"run": spec.name, "error": "the disk is full"}
    run, city = folder / RUNS / spec.name, spec.labels["city"]
    run.mkdir(parents=True)
    names = tuple(f"{city} {i}" for i in range(len(values)))
    places = np.zeros((len(values), 2), dtype=np.int64)
    parts = tuple(windows(values))
    WindowMetrics(names, names, (city,) * len(values), places, values, parts).save(
        run / "test_windows.npz"
    )
    mean = float(values.mean())
    gap = {
        "seen": {"mean": mean - GAPS[city]},
        "unseen": {"mean": mean},
        "intervals": {"mean": [-0.5, 0.5]},
        "unseen_regions": [city],
    }
    return {
        "run": spec.name,
        "error": None,
        "metrics": {"mean": mean},
        "regions": {city: {"mean": mean}},
        "val": {"mean": mean},
        "gap": gap,
        "cost": COST,
        "search": None,
    }


def _values(spec: RunSpec) -> np.ndarray:
    """Cities differ widely, windows and seeds little; est is slightly better in each city."""
    level = {"bern": 0.2, "lima": 0.5, "oslo": 0.8}[spec.labels["city"]]
    better = 0.02 if spec.method == "est" else 0.0
    noise = np.random.default_rng(spec.labels["seed"]).normal(0, 0.01, 30)
    return np.asarray(level + better + noise)


def line_of(table: ComparisonTable, method: str) -> MethodSummary:
    return next(line for line in table.lines if line.method == method)


def test_each_context_has_a_table(tables_of: Tables) -> None:
    apart = tables_of(_values)
    assert [table.title for table in apart] == [f"tiny, city {city}" for city in GAPS]
    assert all(table.units == 30 for table in apart)


def test_held_out_regions_share_a_table(tables_of: Tables) -> None:
    [table] = tables_of(_values, over=["city"])
    assert table.title == "tiny" and table.units == 90
    est = line_of(table, "est")
    estimate = est.metrics["mean"]
    assert len(est.runs) == estimate.runs == 6
    assert estimate.mean == pytest.approx(0.52, abs=0.005)
    assert estimate.low < 0.35 and estimate.high > 0.69  # includes variation between cities
    assert list(est.regions) == list(GAPS)
    assert est.regions["bern"].mean == pytest.approx(0.22, abs=0.005)
    # variation between cities cancels in the difference
    assert est.difference is not None and est.difference.verdict == "better"
    assert est.difference.low > 0.019 and est.difference.high < 0.021


def test_mean_gap_precedes_gaps_by_region(tables_of: Tables) -> None:
    [table] = tables_of(_values, over=["city"])
    gaps = line_of(table, "full").gaps
    assert list(gaps) == ["mean of 3", *GAPS]
    assert gaps["mean of 3"].mean == pytest.approx(-0.2)
    assert [gaps["mean of 3"].low, gaps["mean of 3"].high] == pytest.approx([-0.3, -0.1])
    assert [gaps["oslo"].low, gaps["oslo"].high] == [-0.5, 0.5]


def test_gaps_are_averaged_over_seeds_by_held_out_regions() -> None:
    def row(places: list[str], unseen: float, low: float | None) -> Row:
        metrics = {"unseen": {"mean": unseen}, "seen": {"mean": 0.5}}
        intervals = {"mean": [low, 0.1]}  # JSON has null for NaN
        return {"gap": {**metrics, "intervals": intervals, "unseen_regions": places}}

    rows = [row(["busan"], 0.4, -0.3), row(["busan"], 0.2, -0.5), row([*"abcd"], 0.6, None)]
    repeats: list[Repeat] = [((), seed) for seed in range(4)]
    its = _Runs(repeats, [*rows, {"gap": None}], {}, {}, [])
    found = _gaps(its, "mean", _Draws(Compare()))
    assert list(found) == ["mean of 2", "busan", "4 regions"]
    assert found["mean of 2"].mean == pytest.approx(-0.1)
    busan = found["busan"]
    assert [busan.mean, busan.low, busan.high] == pytest.approx([-0.2, -0.4, 0.1])
    assert busan.spread == pytest.approx(0.1 * math.sqrt(2)) and busan.runs == 2
    assert math.isnan(found["4 regions"].low) and math.isnan(found["4 regions"].spread)


def test_difference_uses_runs_that_both_finished(tables_of: Tables) -> None:
    """Otherwise a method that failed in the hardest city would look better."""

    def failing(spec: RunSpec) -> np.ndarray | None:
        failed = spec.method == "est" and spec.labels["city"] == "bern"
        return None if failed else _values(spec)

    [table] = tables_of(failing, over=["city"])
    est = line_of(table, "est")
    assert len(est.errors) == 2 and len(est.runs) == 4
    assert est.metrics["mean"].mean == pytest.approx(0.67, abs=0.005)
    assert est.difference is not None and est.difference.mean == pytest.approx(0.02)


def test_methods_without_common_replicates_are_not_compared(tables_of: Tables) -> None:
    def apart(spec: RunSpec) -> np.ndarray | None:
        return _values(spec) if (spec.labels["seed"] == 0) == (spec.method == "est") else None

    [table] = tables_of(apart, over=["city"])
    assert line_of(table, "est").difference is None
    assert not math.isnan(line_of(table, "est").metrics["mean"].mean)


@pytest.mark.parametrize(
    ("keys", "mentions"),
    [
        ({"compare": {"over": ["citty"]}}, ["compare.over", "citty"]),
        (
            {
                "compare": {"over": ["city"]},
                "published": [
                    {
                        "file": "f.csv", "source": "s", "method": "m", "values": {"tiny": "v"},
                        "axes": {"city": "c"},
                    }
                ],
            },
            ["published.0.axes.city", "compare.over"],
        ),
    ],
)  # fmt: skip
def test_invalid_replicate_axes_are_refused(
    suite: Write, keys: dict[str, Any], mentions: list[str]
) -> None:
    grid = {"city": {"bern": {"train.lr": 1e-3}, "lima": {"train.lr": 1e-2}}}
    with raises("recipe-invalid", mentions=mentions):
        read_suite(suite(grid=grid, **keys))
