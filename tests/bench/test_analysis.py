"""Aggregation of runs, differences and gaps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.adapter_config import FORMAT
from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary, compare
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.runner import RUNS
from geotune.bench.suite import Compare, Suite, read_suite
from geotune.metrics.regression_metrics import zero_sums
from geotune.metrics.state import MetricState
from geotune.training.window_metrics import WindowMetrics
from helpers.errors import raises

Write = Callable[..., Path]
Tables = Callable[..., list[ComparisonTable]]

METRIC = "bias"  # the mean of the windows' values: windows of one error each
OBJECTIVES = {"tiny": Objective(METRIC, lower=False)}
COST = dict.fromkeys([*COSTS, "tensor_bytes"], 1.0) | {"memory_kind": "process memory"}
GAPS = {"bern": -0.1, "lima": -0.2, "oslo": -0.3}


@pytest.fixture
def held_out(suite: Write) -> Suite:
    """Two methods, three cities held out in turn, two seeds."""
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
def tables_of(
    held_out: Suite, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> Tables:
    """Builds the tables from the window values of each run; None is a failed run.

    `gap` and `cost` replace these entries of a run's row.
    """
    sections = tiny_values()
    task = {"kind": "regress", "quantity": "height", "unit": "m", "mean": 0.0, "std": 1.0}
    config = {
        "format": FORMAT,
        "geotune": "0",
        "base": dict.fromkeys(["name", "fingerprint", "source", "licence"], ""),
        "bands": ["red"],
        "normalization": {"offset": [0.0], "scale": [1.0]},
        **{key: sections[key] for key in ("backbone", "method", "decoder")},
        "task": task,
        "prediction": {"window": 32},
        "hash": "",
    }

    def tables(
        metrics: Callable[[RunSpec], np.ndarray | None],
        gap: Callable[[RunSpec], dict[str, Any] | None] | None = None,
        cost: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[ComparisonTable]:
        specs = expand(held_out)[0]
        rows = [_row(tmp_path, spec, metrics(spec), config) for spec in specs]
        for spec, row in zip(specs, rows, strict=True):
            row.update({} if gap is None else {"gap": gap(spec)})
            row.update({} if cost is None else {"cost": {**COST, **cost}})
        return compare(specs, rows, OBJECTIVES, Compare(draws=400, **options), tmp_path)

    return tables


def _row(folder: Path, spec: RunSpec, values: np.ndarray | None, config: dict[str, Any]) -> Row:
    if values is None:
        return {"run": spec.name, "error": "the disk is full"}
    run, city = folder / RUNS / spec.name, spec.labels["city"]
    run.mkdir(parents=True, exist_ok=True)
    (run / "adapter.json").write_text(json.dumps(config))
    (run / "metrics.json").write_text("{}")
    names = tuple(f"{city} {i}" for i in range(len(values)))
    positions = np.zeros((len(values), 2), dtype=np.int64)
    one = np.ones(())
    states = tuple(
        MetricState({**zero_sums(), "numbers": one, "errors": np.asarray(v)}) for v in values
    )
    WindowMetrics(names, names, (city,) * len(values), positions, values, states).save(
        run / "test_windows.npz"
    )
    mean = float(values.mean())
    gap = {
        "seen": {METRIC: mean - GAPS[city]},
        "unseen": {METRIC: mean},
        "intervals": {METRIC: [-0.5, 0.5]},
        "unseen_regions": [city],
    }
    return {
        "run": spec.name,
        "error": None,
        "metrics": {METRIC: mean},
        "regions": {city: {METRIC: mean}},
        "val": {METRIC: mean},
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
    estimate = est.metrics[METRIC]
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


def test_gaps_are_averaged_over_seeds_by_held_out_regions(tables_of: Tables) -> None:
    unseen = {
        ("bern", 0): (["busan"], 0.4, -0.3),
        ("bern", 1): (["busan"], 0.2, -0.5),
        ("lima", 0): ([*"abcd"], 0.6, None),  # JSON has null for NaN
    }

    def gap(spec: RunSpec) -> dict[str, Any] | None:
        key = spec.labels["city"], spec.labels["seed"]
        if key not in unseen:
            return None
        regions, metric, low = unseen[key]
        return {
            "seen": {METRIC: 0.5},
            "unseen": {METRIC: metric},
            "intervals": {METRIC: [low, 0.1]},
            "unseen_regions": regions,
        }

    [table] = tables_of(_values, gap=gap, over=["city"])
    gaps = line_of(table, "full").gaps
    assert list(gaps) == ["mean of 2", "busan", "4 regions"]
    assert gaps["mean of 2"].mean == pytest.approx(-0.1)
    busan = gaps["busan"]
    assert [busan.mean, busan.low, busan.high] == pytest.approx([-0.2, -0.4, 0.1])
    assert busan.spread == pytest.approx(0.1 * math.sqrt(2)) and busan.runs == 2
    assert math.isnan(gaps["4 regions"].low) and math.isnan(gaps["4 regions"].spread)


@pytest.mark.parametrize(
    ("cost", "memory"),
    [
        ({"tensor_bytes": None, "memory_kind": "process memory"}, None),
        ({"tensor_bytes": 4e8, "memory_kind": "process memory"}, 4e8),
        ({"tensor_bytes": None, "memory_kind": "GPU memory"}, 2e9),
    ],
)
def test_process_memory_is_not_reported_as_tensor_memory(
    tables_of: Tables, cost: dict[str, Any], memory: float | None
) -> None:
    [table] = tables_of(_values, cost={"peak_bytes": 2e9, **cost}, over=["city"])
    assert line_of(table, "est").cost["memory_bytes"] == memory


def test_difference_uses_runs_that_both_finished(tables_of: Tables) -> None:
    """Otherwise a method that failed in the hardest city would look better."""

    def failing(spec: RunSpec) -> np.ndarray | None:
        failed = spec.method == "est" and spec.labels["city"] == "bern"
        return None if failed else _values(spec)

    [table] = tables_of(failing, over=["city"])
    est = line_of(table, "est")
    assert len(est.errors) == 2 and len(est.runs) == 4
    assert est.metrics[METRIC].mean == pytest.approx(0.67, abs=0.005)
    assert est.difference is not None and est.difference.mean == pytest.approx(0.02)


def test_methods_without_common_replicates_are_not_compared(tables_of: Tables) -> None:
    def apart(spec: RunSpec) -> np.ndarray | None:
        return _values(spec) if (spec.labels["seed"] == 0) == (spec.method == "est") else None

    [table] = tables_of(apart, over=["city"])
    assert line_of(table, "est").difference is None
    assert not math.isnan(line_of(table, "est").metrics[METRIC].mean)


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
