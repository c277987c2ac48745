"""What the runs of a suite say together: which are taken together, and what is told of them."""

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
from geotune.errors import RecipeError
from geotune.training.window_metrics import WindowMetrics
from helpers.resampling import mean_of, windows

Write = Callable[..., Path]
Told = Callable[..., list[ComparisonTable]]

GOAL = {"tiny": Objective("mean", lower=False)}
COST = dict.fromkeys([*COSTS, "tensor_bytes"], 1.0) | {"memory_kind": "process memory"}
GAPS = {"bern": -0.1, "lima": -0.2, "oslo": -0.3}


@pytest.fixture
def held_out(suite: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """Two methods, each of three cities held out once, two seeds."""
    monkeypatch.setattr(analysis, "_figures_of", lambda run: mean_of)
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
def told(held_out: Suite, tmp_path: Path) -> Told:
    """The tables of figures by cell: its windows' values, or None of a run that failed."""

    def tables(
        figures: Callable[[RunSpec], np.ndarray | None], **how: Any
    ) -> list[ComparisonTable]:
        cells = expand(held_out)[0]
        rows = [_row(tmp_path, cell, figures(cell)) for cell in cells]
        return compare(cells, rows, GOAL, Compare(draws=400, **how), tmp_path)

    return tables


def _row(folder: Path, cell: RunSpec, values: np.ndarray | None) -> Row:
    if values is None:
        return {"run": cell.name, "error": "the disk is full"}
    run, city = folder / RUNS / cell.name, cell.labels["city"]
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
        "run": cell.name,
        "error": None,
        "metrics": {"mean": mean},
        "regions": {city: {"mean": mean}},
        "val": {"mean": mean},
        "gap": gap,
        "cost": COST,
        "search": None,
    }


def _values(cell: RunSpec) -> np.ndarray:
    """Cities are far apart, windows and seeds close, and est is a little better in each."""
    level = {"bern": 0.2, "lima": 0.5, "oslo": 0.8}[cell.labels["city"]]
    better = 0.02 if cell.method == "est" else 0.0
    noise = np.random.default_rng(cell.labels["seed"]).normal(0, 0.01, 30)
    return np.asarray(level + better + noise)


def line_of(table: ComparisonTable, method: str) -> MethodSummary:
    return next(line for line in table.lines if line.method == method)


def test_what_is_not_to_be_taken_together_is_a_table_each(told: Told) -> None:
    apart = told(_values)
    assert [table.title for table in apart] == [f"tiny, city {city}" for city in GAPS]
    assert all(table.units == 30 for table in apart)


def test_regions_that_are_held_out_in_turn_are_one_table(told: Told) -> None:
    [table] = told(_values, over=["city"])
    assert table.title == "tiny" and table.units == 90
    est = line_of(table, "est")
    figure = est.figures["mean"]
    assert len(est.runs) == figure.runs == 6
    assert figure.mean == pytest.approx(0.52, abs=0.005)
    assert figure.low < 0.35 and figure.high > 0.69  # which cities there are
    assert list(est.regions) == list(GAPS)
    assert est.regions["bern"].mean == pytest.approx(0.22, abs=0.005)
    # which cancels between methods, for both were measured in the same
    assert est.against is not None and est.against.verdict == "better"
    assert est.against.low > 0.019 and est.against.high < 0.021


def test_the_gap_of_all_regions_stands_before_those_of_each(told: Told) -> None:
    [table] = told(_values, over=["city"])
    gaps = line_of(table, "full").gaps
    assert list(gaps) == ["mean of 3", *GAPS]
    assert gaps["mean of 3"].mean == pytest.approx(-0.2)
    assert [gaps["mean of 3"].low, gaps["mean of 3"].high] == pytest.approx([-0.3, -0.1])
    assert [gaps["oslo"].low, gaps["oslo"].high] == [-0.5, 0.5]


def test_gaps_of_seeds_are_averaged_by_the_regions_not_seen() -> None:
    def row(places: list[str], unseen: float, low: float | None) -> Row:
        figures = {"unseen": {"mean": unseen}, "seen": {"mean": 0.5}}
        intervals = {"mean": [low, 0.1]}  # JSON has null for what is no number
        return {"gap": {**figures, "intervals": intervals, "unseen_regions": places}}

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


def test_a_difference_is_of_what_both_have_done(told: Told) -> None:
    """Else a method that failed in the hardest city would pass for the better one."""

    def failing(cell: RunSpec) -> np.ndarray | None:
        failed = cell.method == "est" and cell.labels["city"] == "bern"
        return None if failed else _values(cell)

    [table] = told(failing, over=["city"])
    est = line_of(table, "est")
    assert len(est.errors) == 2 and len(est.runs) == 4
    assert est.figures["mean"].mean == pytest.approx(0.67, abs=0.005)
    assert est.against is not None and est.against.mean == pytest.approx(0.02)


def test_methods_that_share_no_run_are_not_compared(told: Told) -> None:
    def apart(cell: RunSpec) -> np.ndarray | None:
        return _values(cell) if (cell.labels["seed"] == 0) == (cell.method == "est") else None

    [table] = told(apart, over=["city"])
    assert line_of(table, "est").against is None
    assert not math.isnan(line_of(table, "est").figures["mean"].mean)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"compare": {"over": ["citty"]}}, r"compare\.over: citty is no axis of grid"),
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
            r"published\.0\.axes\.city: compare\.over takes its choices together",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_together(suite: Write, keys: dict[str, Any], said: str) -> None:
    grid = {"city": {"bern": {"train.lr": 1e-3}, "lima": {"train.lr": 1e-2}}}
    with pytest.raises(RecipeError, match=said):
        read_suite(suite(grid=grid, **keys))
