"""Aggregation of runs, differences and gaps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from geotune.adapter_config import FORMAT
from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary, compare
from geotune.bench.combined_tables import combine_tables
from geotune.bench.comparison_tables import cells, combined_notes, notes
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective
from geotune.bench.measured_runs import Coverage, pool_folds
from geotune.bench.results import RUNS, Row
from geotune.bench.suite import Compare, Suite, read_suite
from geotune.metrics.regression_metrics import zero_sums
from geotune.metrics.state import MetricState
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics
from helpers.errors import raises

Write = Callable[..., Path]
Tables = Callable[..., list[ComparisonTable]]

METRIC = "bias"  # the mean of the windows' values: windows of one error each
OBJECTIVES = {"tiny": Objective(METRIC, lower=False)}
COST = dict.fromkeys([*COSTS, "tensor_bytes"], 1.0) | {"memory_kind": "process memory"}
GAPS = {"bern": -0.1, "cork": -0.1, "kiel": -0.2, "lima": -0.2, "oslo": -0.3, "riga": -0.3}


@pytest.fixture
def held_out(suite: Write) -> Suite:
    """Two methods, six cities held out in turn, two seeds."""
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

    Three windows are a scene, or all if they have `scene_positions`. `gap`, `cost`, `search` and
    `row` replace entries of a run's row. Methods in `waiting` have no finished run.
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
        row: dict[str, Any] | None = None,
        search: Callable[[RunSpec], dict[str, Any]] | None = None,
        scene_positions: np.ndarray | None = None,
        areas: tuple[int, ...] | None = None,
        keep_windows: bool = True,
        waiting: tuple[str, ...] = (),
        finished: Callable[[RunSpec], bool] = lambda spec: True,
        each: Callable[[RunSpec], dict[str, Any]] = lambda spec: {},
        **options: Any,
    ) -> list[ComparisonTable]:
        specs = expand(held_out)[0]
        rows = [_row(tmp_path, s, metrics(s), config, scene_positions, areas) for s in specs]
        if not keep_windows:
            for path in tmp_path.rglob("test_windows.npz"):
                path.unlink()
        for spec, entry in zip(specs, rows, strict=True):
            entry.update({} if gap is None else {"gap": gap(spec)})
            entry.update({} if cost is None else {"cost": {**COST, **cost}})
            entry.update({} if search is None else {"search": search(spec)})
            entry.update((row or {}) | each(spec))
        later = [
            replace(spec, labels={**spec.labels, spec.axis: name})
            for name in waiting
            for spec in specs
            if spec.method == "est"
        ]
        return compare(
            [*specs, *later],
            [
                *(row if finished(spec) else None for spec, row in zip(specs, rows, strict=True)),
                *[None] * len(later),
            ],
            OBJECTIVES,
            Compare(**options),
            tmp_path,
        )

    return tables


def _row(
    folder: Path,
    spec: RunSpec,
    values: np.ndarray | None,
    config: dict[str, Any],
    positions: np.ndarray | None,
    areas: tuple[int, ...] | None,
) -> Row:
    if values is None:
        return {"run": spec.name, "error": "the disk is full"}
    run, city = folder / RUNS / spec.name, spec.labels["city"]
    run.mkdir(parents=True, exist_ok=True)
    (run / "adapter.json").write_text(json.dumps(config))
    (run / "metrics.json").write_text("{}")
    names = tuple(f"{city} {i}" for i in range(len(values)))
    scenes = tuple(f"{city} {i // 3 if positions is None else 0}" for i in range(len(values)))
    positions = np.zeros((len(values), 2), dtype=np.int64) if positions is None else positions
    one = np.ones(())
    states = tuple(
        MetricState({**zero_sums(), "numbers": one, "errors": np.asarray(v)}) for v in values
    )
    areas = tuple(np.unique(scenes, return_inverse=True)[1].tolist()) if areas is None else areas
    groups = (city,) * len(values)
    unknown = np.full((len(values), 4), np.nan)
    WindowMetrics(names, scenes, groups, areas, positions, values, states, unknown).save(
        run / "test_windows.npz"
    )
    mean = float(values.mean())
    gap = {
        "seen": {METRIC: mean - GAPS[city]},
        "unseen": {METRIC: mean},
        "intervals": {METRIC: [-0.5, 0.5]},
        "units": "10 test scenes and 20 test scenes",
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
    level = 0.2 + 0.12 * list(GAPS).index(spec.labels["city"])
    better = 0.02 if spec.method == "est" else 0.0
    noise = np.random.default_rng(spec.labels["seed"]).normal(0, 0.01, 30)
    return np.asarray(level + better + noise)


def line_of(table: ComparisonTable, method: str) -> MethodSummary:
    return next(line for line in table.lines if line.method == method)


def test_each_context_has_a_table(tables_of: Tables) -> None:
    apart = tables_of(_values)
    assert [table.title for table in apart] == [f"tiny, city {city}" for city in GAPS]
    assert all(table.coverage == Coverage("10 test scenes", "") for table in apart)
    assert all(table.comparisons == 1 for table in apart)


def test_methods_without_a_result_share_the_error_rate(tables_of: Tables) -> None:
    """So the interval of a method does not change when another one finishes."""

    def width(waiting: tuple[str, ...], **options: Any) -> float:
        table = tables_of(_values, waiting=waiting, **options)[0]
        assert table.planned == ["est", *waiting] and table.comparisons == 1
        text = notes(table, Compare())
        assert ("without a result" in text) == bool(waiting)
        assert ("interval holds" in text) == (not waiting)
        difference = line_of(table, "est").difference
        assert difference is not None
        return difference.high - difference.low

    assert width(("lora",)) > width(())
    assert width(("lora", "lst")) > width(("lora",))
    primary = {"primary": ["est"]}
    assert width(("lora",), **primary) == width(("lora", "lst"), **primary) == width(("lora",))


def test_difference_covers_seeds_and_scenes(tables_of: Tables) -> None:
    """In the simplest case it equals a t interval: here seeds do not vary."""
    rng = np.random.default_rng(0)
    of_scene = rng.normal(0.1, 0.05, 10)

    def values(spec: RunSpec) -> np.ndarray:
        return 0.5 + (of_scene.repeat(3) if spec.method == "est" else np.zeros(30))

    table = tables_of(values)[0]
    found = line_of(table, "est").difference
    expected = stats.t.interval(0.95, 9, of_scene.mean(), stats.sem(of_scene))
    assert found is not None and found.verdict == "better"
    assert (found.low, found.high) == pytest.approx(expected, abs=0.002)


def test_repeated_windows_of_a_scene_add_nothing(tables_of: Tables) -> None:
    def values(windows: int) -> Callable[[RunSpec], np.ndarray]:
        return lambda spec: np.resize(_values(spec)[:10], 10).repeat(windows)

    [one, *_] = tables_of(values(3))
    [two, *_] = tables_of(values(3), unit="scene")
    assert line_of(one, "est").difference == line_of(two, "est").difference
    assert one.coverage.text == "10 test scenes"


@pytest.mark.parametrize(("windows", "reason"), [(3, "one test scene"), (6, "only 2 test scenes")])
def test_few_scenes_allow_no_verdict(tables_of: Tables, windows: int, reason: str) -> None:
    table = tables_of(lambda spec: _values(spec)[:windows])[0]
    found = line_of(table, "est").difference
    assert found is not None and str(found) == f"no verdict: {reason}"
    assert found.low <= found.mean <= found.high  # over the seeds
    assert table.coverage.text == ""
    with raises("suite-units", key="compare.unit", mentions=["scene", "6"]):
        tables_of(lambda spec: _values(spec)[:windows], unit="scene")


def test_neighbouring_scenes_are_one_unit(tables_of: Tables) -> None:
    of_window = np.repeat(range(10), 3).tolist()
    areas = tuple(scene % 5 for scene in of_window)
    table = tables_of(_values, areas=areas)[0]
    assert table.coverage == Coverage("10 test scenes in 5 test regions", "only 5 test regions")
    found = line_of(table, "est").difference
    assert found is not None and found.verdict == "no verdict"
    table = tables_of(_values, areas=areas, unit="scene")[0]
    assert table.coverage == Coverage("10 test scenes", "")
    table = tables_of(_values, areas=tuple(scene % 6 for scene in of_window))[0]
    assert table.coverage == Coverage("6 test regions", "")


def test_blocks_of_a_scene_allow_an_interval_but_no_verdict(tables_of: Tables) -> None:
    positions = 16 * np.array(list(np.ndindex(12, 12)))

    def values(spec: RunSpec) -> np.ndarray:
        seed = [spec.labels["seed"], spec.method == "est"]
        return np.random.default_rng(seed).normal(0.5, 0.1, 144)

    table = tables_of(values, scene_positions=positions)[0]
    assert table.coverage == Coverage(
        "16 test blocks of 48 x 48 pixels in 1 test scene", "one test scene"
    )
    found = line_of(table, "est").difference
    assert found is not None and str(found) == "no verdict: one test scene"


def test_one_seed_allows_no_verdict(tables_of: Tables) -> None:
    def values(spec: RunSpec) -> np.ndarray | None:
        return _values(spec) if spec.labels["seed"] == 0 else None

    found = line_of(tables_of(values)[0], "est").difference
    assert found is not None and str(found) == "no verdict: one seed"


def test_rows_without_windows_still_give_intervals(tables_of: Tables, tmp_path: Path) -> None:
    tables = tables_of(_values, keep_windows=False)
    assert tables[0].coverage == Coverage("", "one test region")
    found = line_of(tables[0], "est").difference
    assert found is not None and found.low < found.mean < found.high


def test_rows_with_equal_regions_have_units(tables_of: Tables) -> None:
    regions = {f"region {i}": {METRIC: 0.5 + 0.1 * i} for i in range(6)}
    tables = tables_of(
        _values, keep_windows=False, row={"regions": regions, "metrics": {METRIC: 0.75}}
    )
    assert tables[0].coverage == Coverage("6 test regions", "")
    tables = tables_of(
        _values, keep_windows=False, row={"regions": regions, "metrics": {METRIC: 0.7}}
    )
    assert tables[0].coverage == Coverage("", "the test windows of the runs are missing")


def test_held_out_regions_share_a_table(tables_of: Tables) -> None:
    [table] = tables_of(_values, over=["city"])
    assert table.title == "tiny" and table.coverage.text == "6 held-out regions (city)"
    est = line_of(table, "est")
    estimate = est.metrics[METRIC]
    assert len(est.runs) == 12 and estimate.runs == 6
    assert estimate.mean == pytest.approx(0.52, abs=0.005)
    assert estimate.low < 0.3 and estimate.high > 0.74  # includes variation between cities
    assert list(est.regions) == list(GAPS)
    assert est.regions["bern"].mean == pytest.approx(0.22, abs=0.005)
    # variation between cities cancels in the difference
    assert est.difference is not None and est.difference.verdict == "better"
    assert est.difference.low > 0.019 and est.difference.high < 0.021


def test_windows_of_folds_are_pooled(tables_of: Tables) -> None:
    """As if one run of each seed had tested the scenes of all folds."""
    folds = list(GAPS)
    [table] = tables_of(_values, folds=["city"])
    full, est = line_of(table, "full"), line_of(table, "est")
    assert len(est.runs) == 2 and list(est.regions) == folds
    assert table.coverage == Coverage("60 test scenes", "")
    assert full.metrics[METRIC].mean == pytest.approx(0.2 + 0.12 * 2.5, abs=0.005)
    assert est.difference is not None and str(est.difference.verdict) == "better"
    assert est.cost["seconds"] == 1.0 and not est.gaps
    seeds = [np.random.default_rng(seed).normal(0, 0.01, 30).mean() for seed in (0, 1)]
    assert est.metrics[METRIC].spread == pytest.approx(np.std(seeds, ddof=1))


def test_each_search_of_the_folds_is_kept_once(tables_of: Tables) -> None:
    """The seeds of a fold share a search."""

    def search(spec: RunSpec) -> dict[str, Any]:
        city = spec.labels["city"]
        return {"key": "train.lr", "value": len(city) / 100, "score": 0.5, "trials": [city]}

    [table] = tables_of(_values, folds=["city"], search=search)
    assert [each["trials"] for each in line_of(table, "est").searches] == [[city] for city in GAPS]
    assert all(not line.searches for line in tables_of(_values, folds=["city"])[0].lines)


def test_seeds_without_all_folds_are_left_out(tables_of: Tables) -> None:
    def values(spec: RunSpec) -> np.ndarray | None:
        unfinished = (spec.method, spec.labels["city"], spec.labels["seed"]) == ("est", "lima", 1)
        return None if unfinished else _values(spec)

    [table] = tables_of(values, folds=["city"])
    est = line_of(table, "est")
    assert len(est.runs) == 1 and len(est.errors) == 1
    assert str(est.difference) == "no verdict: one seed"


def test_planned_folds_must_be_finished(tables_of: Tables) -> None:
    """Half a cross-validation is not called pooled, and gives no verdict."""

    def row(spec: RunSpec) -> bool:
        return spec.labels["city"] == "bern"

    [table] = tables_of(_values, folds=["city"], finished=row)
    assert table.comparisons == 0 and table.folds == 1
    for line in table.lines:
        assert not line.runs and line.incomplete == 2 and line.difference is None
        assert "(2 without all folds)" in cells(table, line)[1]
    assert "pooled" not in notes(table, Compare(folds=["city"]))
    [complete] = tables_of(_values, folds=["city"])
    assert f"The {len(GAPS)} folds (city) are pooled." in notes(complete, Compare(folds=["city"]))
    assert [line.trainings for line in complete.lines] == [12, 12]


def test_means_over_folds_are_unknown_if_one_is(tables_of: Tables) -> None:
    """And a region of several folds is computed from the windows of all."""

    def joules(spec: RunSpec) -> dict[str, Any]:
        known = spec.labels["city"] != "lima"
        return {"cost": {**COST, "joules": 10.0 if known else None}}

    [table] = tables_of(_values, folds=["city"], each=joules)
    assert all(line.cost["joules"] is None for line in table.lines)
    [table] = tables_of(_values, folds=["city"], cost={"joules": 10.0})
    assert all(line.cost["joules"] == 10 for line in table.lines)


def test_folds_that_share_test_scenes_are_refused(tables_of: Tables, tmp_path: Path) -> None:
    tables_of(_values)
    with raises("suite-folds", key="compare.folds", mentions=["bern 0", "full-bern-0"]):
        rows = [tmp_path / RUNS / "tiny" / f"full-{city}-0" for city in GAPS]
        folds = tuple(RunDir(row) for row in (rows[0], rows[0]))
        pool_folds(
            [{"run": "full-bern-0"}] * 2, folds, lambda run: WindowMetrics.load(run.test_windows)
        )


def test_few_held_out_regions_allow_no_verdict(tables_of: Tables) -> None:
    [table] = tables_of(lambda s: _values(s) if s.labels["city"] < "m" else None, over=["city"])
    found = line_of(table, "est").difference
    assert found is not None and str(found) == "no verdict: only 4 held-out regions"


def test_choices_that_share_test_regions_allow_no_verdict(tables_of: Tables) -> None:
    [table] = tables_of(_values, over=["city"], row={"regions": {"rome": {METRIC: 0.5}}})
    assert table.coverage.reason == ""  # the scenes decide
    rome = {"regions": {"rome": {METRIC: 0.5}}}
    [table] = tables_of(_values, over=["city"], row=rome, keep_windows=False)
    assert table.coverage.reason == "bern and cork (city) share test scenes"
    [table] = tables_of(_values, over=["city"], row={"regions": {}}, keep_windows=False)
    assert table.coverage.reason == "the test scenes of the choices of city are unknown"


def test_mean_gap_precedes_gaps_by_region(tables_of: Tables) -> None:
    [table] = tables_of(_values, over=["city"])
    gaps = line_of(table, "full").gaps
    assert list(gaps) == ["mean of 6", *GAPS]
    assert gaps["mean of 6"].mean == pytest.approx(-0.2)
    assert -0.4 < gaps["mean of 6"].low < -0.25
    assert [gaps["oslo"].low, gaps["oslo"].high] == [-0.5, 0.5]


def test_intervals_over_windows_of_older_runs_are_not_shown(tables_of: Tables) -> None:
    def gap(spec: RunSpec) -> dict[str, Any]:
        return {
            "seen": {METRIC: 0.5},
            "unseen": {METRIC: 0.4},
            "intervals": {METRIC: [-0.2, 0.0]},
            "unseen_regions": ["oslo"],
        }

    oslo = line_of(tables_of(_values, gap=gap)[0], "full").gaps["oslo"]
    assert oslo.mean == pytest.approx(-0.1) and math.isnan(oslo.low)


PLANNED = {(("recipe", city),): ["full", "est"] for city in GAPS}


def test_tables_are_combined_over_recipes(tables_of: Tables) -> None:
    tables = [
        replace(table, context={"recipe": city})
        for city, table in zip(GAPS, tables_of(_values), strict=True)
    ]
    [combined] = combine_tables(tables, PLANNED, Compare())
    assert combined.recipes == list(GAPS) and combined.reference == "full"
    differences = [line_of(table, "est").difference for table in tables]
    relative = [each.relative for each in differences if each is not None]
    assert combined.by_recipe == {"est": relative}
    assert combined.differences["est"].mean == pytest.approx(np.mean(relative))
    assert combined.differences["est"].verdict in ("better", "equivalent", "not inferior")
    assert combine_tables(tables[:1], PLANNED, Compare()) == []


def test_only_the_named_recipes_are_combined(tables_of: Tables) -> None:
    cities = list(GAPS)
    tables = [
        replace(table, context={"recipe": city})
        for city, table in zip(GAPS, tables_of(_values), strict=True)
    ]
    [combined] = combine_tables(tables, PLANNED, Compare(combine=cities[1:]))
    assert combined == combine_tables(tables[1:], PLANNED, Compare())[0]
    assert combined.recipes == cities[1:]


@pytest.mark.parametrize("failed", [False, True])
def test_a_method_is_combined_over_the_data_sets_on_which_it_was_compared(
    tables_of: Tables, failed: bool
) -> None:
    """An unfinished data set changes nothing; one on which the method failed takes its verdict."""
    tables = [
        replace(table, context={"recipe": city})
        for city, table in zip(GAPS, tables_of(_values), strict=True)
    ]
    complete, incomplete = tables[:4], tables[4]
    est = replace(line_of(incomplete, "est"), difference=None, runs=[], errors=["out of memory"])
    others = [line for line in incomplete.lines if line.method == "full"]
    lora = replace(line_of(incomplete, "est"), method="lora")
    incomplete = replace(incomplete, lines=[*others, *([est, lora] if failed else [])])
    [before] = combine_tables(complete, PLANNED, Compare())
    [after] = combine_tables([*complete, incomplete], PLANNED, Compare())
    difference = after.differences["est"]
    assert difference.mean == before.differences["est"].mean
    if failed:
        assert difference.verdict == "no verdict" and difference.reason == "failed on oslo"
        assert after.recipes == list(GAPS)[:5] and math.isnan(after.by_recipe["est"][4])
        assert "not compared there" in combined_notes(after, Compare())
    else:
        assert after == before and "not compared" not in combined_notes(after, Compare())


def test_methods_without_a_result_share_the_error_rate_of_combined_tables(
    tables_of: Tables,
) -> None:
    tables = [
        replace(table, context={"recipe": city})
        for city, table in zip(GAPS, tables_of(_values), strict=True)
    ]

    def width(planned: dict[Any, list[str]], **options: Any) -> float:
        [combined] = combine_tables(tables, planned, Compare(**options))
        assert list(combined.differences) == ["est"]
        return combined.differences["est"].high - combined.differences["est"].low

    cities = [*PLANNED]
    later = {(("recipe", "later"),): ["full", "lora"]}
    on_one = PLANNED | {cities[0]: ["full", "est", "lora"]}
    assert width(on_one) == width(PLANNED)  # cannot be combined
    assert width(on_one | later) > width(PLANNED)
    named = {"combine": [city for ((_, city),) in cities]}
    assert width(on_one | later, **named) == width(PLANNED)
    no_reference = {(("recipe", "later"),): ["lora", "lst"]}
    assert width(on_one | no_reference) == width(PLANNED)


def test_methods_on_different_scenes_are_not_compared(tables_of: Tables) -> None:
    """Neither in a table nor over data sets: the difference would be that of the scenes."""

    def values(spec: RunSpec) -> np.ndarray:
        return _values(spec)[: 27 if spec.method == "est" else 30]

    tables = tables_of(values)
    for table in tables:
        assert table.coverage.reason == "the test scenes of the runs differ"
        assert line_of(table, "est").difference is None and table.comparisons == 0
        assert not any(line.pareto_memory or line.pareto_time for line in table.lines)
    tables = [
        replace(table, context={"recipe": city}) for city, table in zip(GAPS, tables, strict=True)
    ]
    assert combine_tables(tables, PLANNED, Compare()) == []


def test_the_reference_stays_the_same_until_it_is_finished(tables_of: Tables) -> None:
    def values(spec: RunSpec) -> np.ndarray | None:
        return _values(spec) if spec.method == "est" else None

    table = tables_of(values, waiting=("lst",), to="lst")[0]
    assert table.reference == "lst" and line_of(table, "est").difference is None
    assert table.coverage.reason == "lst, the reference, has no complete run"
    assert "No verdict: lst, the reference" in notes(table, Compare())


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
            "units": "6 test scenes and 6 test scenes",
            "unseen_regions": regions,
        }

    [table] = tables_of(_values, gap=gap, over=["city"])
    gaps = line_of(table, "full").gaps
    assert list(gaps) == ["mean of 2", "busan", "4 regions"]
    assert gaps["mean of 2"].mean == pytest.approx(-0.05)  # of -0.2 and +0.1
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
    assert len(est.errors) == 2 and len(est.runs) == 10
    assert est.metrics[METRIC].mean == pytest.approx(0.58, abs=0.005)
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
            ["published.0.axes.city", "compare averages"],
        ),
        ({"compare": {"folds": ["cities"]}}, ["compare.folds: cities", "did you mean city"]),
        ({"compare": {"over": ["city"], "folds": ["city"]}}, ["over and folds exclude"]),
    ],
)  # fmt: skip
def test_invalid_replicate_axes_are_refused(
    suite: Write, keys: dict[str, Any], mentions: list[str]
) -> None:
    grid = {"city": {"bern": {"train.lr": 1e-3}, "lima": {"train.lr": 1e-2}}}
    with raises("recipe-invalid", mentions=mentions):
        read_suite(suite(grid=grid, **keys))
