"""The runs of each method of a table, with the influence of each test unit on their metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from geotune.adapter_config import load_adapter_config
from geotune.bench.grid import RunSpec
from geotune.bench.results import RUNS, Row
from geotune.bench.statistics import Sample
from geotune.bench.suite import Compare
from geotune.config import parse_sections
from geotune.errors import GeotuneError
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.spatial_units import (
    MIN_UNITS,
    SpatialUnits,
    blocks,
    independent_units,
    units_by_name,
)
from geotune.metrics.state import MetricState
from geotune.metrics.uncertainty import Floats, influences
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics
from geotune.utils.text import pluralize

Repeat = tuple[tuple[Any, ...], int]
"""The replicate of a run: its labels on the axes of `compare.over`, and its seed."""

Tested = tuple[RunDir, ...]
"""The folders of a run: one, or one for each fold."""

Load = Callable[[RunDir], WindowMetrics]
"""Reads the test windows of a run."""

Influences = dict[str, Floats]
"""The influence of each unit on each metric, by name."""


@dataclass(frozen=True)
class MeasuredRuns:
    """The finished runs of one method.

    Attributes:
        repeats: the replicate of each run.
        rows: their rows; those of folds are pooled.
        folders: their folders.
        errors: messages of the failed runs.
        influences: of each run; empty if unknown.
        held_out: whether the replicates are held-out regions instead of seeds.
        searches: the different results of their searches.
        incomplete: how many seeds finished some of their folds; they are left out.
    """

    repeats: list[Repeat]
    rows: list[Row]
    folders: list[Tested]
    errors: list[str]
    influences: list[Influences] = field(default_factory=list)
    held_out: bool = False
    searches: list[Mapping[str, Any]] = field(default_factory=list)
    incomplete: int = 0

    def sample(self, metric: str, repeats: Sequence[Repeat], sign: int = 1) -> Sample:
        """A metric of some runs; of held-out regions, the mean over the seeds of each."""
        runs = [self.repeats.index(repeat) for repeat in repeats]
        values = [sign * nan_if_none(self.rows[i]["metrics"].get(metric)) for i in runs]
        if self.held_out:
            by_region: dict[tuple[Any, ...], list[float]] = {}
            for (region, _), value in zip(repeats, values, strict=True):
                by_region.setdefault(region, []).append(value)
            return Sample(np.array([np.mean(each) for each in by_region.values()]), held_out=True)
        known = bool(self.influences) and metric in self.influences[0]
        influence = sign * np.stack([self.influences[i][metric] for i in runs]) if known else None
        return Sample(np.array(values), influence)


@dataclass(frozen=True)
class Coverage:
    """What the intervals of a table cover besides the seeds.

    Attributes:
        text: the test units; empty if they cover none.
        reason: why there is no verdict; empty if there is one.
        comparable: whether the methods were tested on the same scenes.
    """

    text: str
    reason: str
    comparable: bool = True


def measure(
    by_method: Mapping[str, Sequence[tuple[RunSpec, Row | None]]],
    reference: str,
    options: Compare,
    folder: Path,
) -> tuple[dict[str, MeasuredRuns], Coverage]:
    """The runs of each method, and what their intervals cover.

    Runs without a row are not finished. With folds, seeds count of which all folds are finished.
    """
    load = cache(load_windows)  # folds are read to be pooled, and for the influences
    measured = {name: _runs(pairs, options, folder, load) for name, pairs in by_method.items()}
    if options.over:
        return measured, _held_out(measured.values(), options, load)
    stored = {name: runs.folders for name, runs in measured.items()}
    if not any(stored.values()):
        return measured, Coverage("", "no finished run")
    if all(_has_windows(run) for runs in stored.values() for run in runs):
        found, coverage = _from_windows(stored, reference, options, load)
    else:
        found, coverage = _from_regions(measured)
    for name, each in found.items():
        measured[name].influences.extend(each)
    return measured, coverage


def _runs(
    pairs: Sequence[tuple[RunSpec, Row | None]], options: Compare, folder: Path, load: Load
) -> MeasuredRuns:
    """The finished runs of a method."""
    folds = {tuple(spec.labels.get(axis) for axis in options.folds) for spec, _ in pairs}
    by_repeat: dict[Repeat, list[Row]] = {}
    for spec, row in pairs:
        if row is not None and row["error"] is None:
            by_repeat.setdefault(_repeat(spec, options), []).append(row)
    runs = {repeat: rows for repeat, rows in by_repeat.items() if len(rows) >= len(folds)}
    folders = [tuple(RunDir(folder / RUNS / row["run"]) for row in rows) for rows in runs.values()]
    return MeasuredRuns(
        [*runs],
        [
            pool_folds(rows, run, load) if len(rows) > 1 else rows[0]
            for rows, run in zip(runs.values(), folders, strict=True)
        ],
        folders,
        [f"{row['run']}: {row['error']}" for _, row in pairs if row and row["error"] is not None],
        held_out=bool(options.over),
        searches=_distinct(row["search"] for rows in runs.values() for row in rows),
        incomplete=len(by_repeat) - len(runs),
    )


def _distinct(searches: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """Each search once; seeds share one."""
    found: list[Mapping[str, Any]] = []
    for search in searches:
        if search is not None and search not in found:
            found.append(search)
    return found


def pool_folds(rows: Sequence[Row], folds: Tested, load: Load) -> Row:
    """The row of a cross-validation: metrics of the pooled test windows, means of all else.

    Raises `GeotuneError` if the windows of a fold are missing, or if folds share test scenes.
    """
    windows = [load(fold) for fold in folds]
    scenes = [scene for fold in windows for scene in {*fold.scenes}]
    shared = sorted({scene for scene in scenes if scenes.count(scene) > 1})
    if shared:
        raise GeotuneError(
            f"compare.folds: {shared[0]} is a test scene of several of the runs "
            f"{', '.join(row['run'] for row in rows)}; expected folds without common test scenes",
            code="suite-folds",
            key="compare.folds",
        )
    states = [state for fold in windows for state in fold.states]
    compute = _metric_function(folds)
    in_region: dict[str, list[MetricState]] = {}
    for fold in windows:
        for group, state in zip(fold.groups, fold.states, strict=True):
            in_region.setdefault(group, []).append(state)
    named = dict.fromkeys(name for row in rows for name in row["regions"])
    return {
        **rows[0],
        "metrics": compute(MetricState.merge(states)),
        "regions": {
            name: compute(MetricState.merge(in_region[name])) for name in named if name in in_region
        },
        "val": _means([row["val"] for row in rows]),
        "gap": None,
        "cost": _means([row["cost"] for row in rows]),
    }


def _means(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number, None if one is unknown; of texts the first."""

    def mean(name: str) -> Any:
        each = [entries.get(name) for entries in values]
        if any(isinstance(value, str) for value in each):
            return each[0]
        return None if None in each else float(np.mean(each))  # type: ignore[arg-type]

    return {name: mean(name) for name in dict.fromkeys(n for each in values for n in each)}


def load_windows(run: RunDir) -> WindowMetrics:
    """The test windows of a run."""
    return WindowMetrics.load(run.test_windows)


def _has_windows(run: Tested) -> bool:
    return all(fold.test_windows.exists() for fold in run)


def _repeat(spec: RunSpec, options: Compare) -> Repeat:
    return tuple(spec.labels[axis] for axis in options.over), spec.labels["seed"]


def _held_out(measured: Iterable[MeasuredRuns], options: Compare, load: Load) -> Coverage:
    """Regions that are held out in turn are the units."""
    tested: dict[tuple[Any, ...], set[str]] = {}
    for runs in measured:
        for (choice, _), row, run in zip(runs.repeats, runs.rows, runs.folders, strict=True):
            scenes = load(run[0]).scenes if _has_windows(run) else row["regions"]
            tested.setdefault(choice, set()).update(scenes)
    axes = " and ".join(options.over)
    shared = next((pair for pair in combinations(tested, 2) if _shared(tested, *pair)), None)
    reason = ""
    if shared is not None:
        one, other = (", ".join(map(str, choice)) for choice in shared)
        reason = f"{one} and {other} ({axes}) share test scenes"
    elif not all(tested.values()):
        reason = f"the test scenes of the choices of {axes} are unknown"
    return Coverage(f"{pluralize(len(tested), 'held-out region')} ({axes})", reason)


def _shared(
    tested: Mapping[tuple[Any, ...], set[str]], one: tuple[Any, ...], other: tuple[Any, ...]
) -> bool:
    return not tested[one].isdisjoint(tested[other])


def _from_windows(
    stored: Mapping[str, Sequence[Tested]], reference: str, options: Compare, load: Load
) -> tuple[dict[str, list[Influences]], Coverage]:
    """Influences from the stored metric states of the test windows."""
    windows = {
        name: [WindowMetrics.concatenate([load(fold) for fold in run]) for run in runs]
        for name, runs in stored.items()
        if runs
    }

    def by_method(
        unit_of: Callable[[WindowMetrics], SpatialUnits],
    ) -> dict[str, list[Influences]]:
        return {
            name: [
                influences(_metric_function(run), unit_of(each).merge(each.states))
                for run, each in zip(stored[name], runs, strict=True)
            ]
            for name, runs in windows.items()
        }

    every = [each for runs in windows.values() for each in runs]
    first, units = every[0], _independent(every[0], options)
    if any(set(each.scenes) != set(first.scenes) for each in every):
        return {}, Coverage("", "the test scenes of the runs differ", comparable=False)
    of_scene = dict(zip(first.scenes, units.of_window.tolist(), strict=True))

    def independent(each: WindowMetrics) -> SpatialUnits:
        """The units of the first run: files of an older version may know fewer neighbours."""
        return replace(units, of_window=np.array([of_scene[scene] for scene in each.scenes]))

    if units.enough:
        return by_method(independent), Coverage(str(units), "")
    if options.unit != "auto":
        raise GeotuneError(
            f"compare.unit: the test split has {units}; expected at least {MIN_UNITS} for "
            "intervals over them; test on more, or remove compare.unit",
            code="suite-units",
            key="compare.unit",
        )
    few = f"one test {units.kind}" if units.count == 1 else f"only {units}"
    # Scenes, or blocks of scenes, are not independent: intervals over them describe these regions.
    within = units_by_name("scene", first.scenes)
    same = all(each.names == first.names for each in every)
    if within.count < MIN_UNITS and same:
        means = {
            name: np.mean([each.scores for each in runs], axis=0) for name, runs in windows.items()
        }
        base = means.pop(reference, 0.0) if len(means) > 1 else 0.0
        values = np.stack([mean - base for mean in means.values()])
        within = blocks(first.scenes, first.positions, np.nan_to_num(values))
    if within.count < MIN_UNITS:
        return {}, Coverage("", few)
    found = by_method(
        lambda each: within if within.kind == "block" else units_by_name("scene", each.scenes)
    )
    return found, Coverage(f"{within} in {units}", few)


def _independent(windows: WindowMetrics, options: Compare) -> SpatialUnits:
    if options.unit == "scene":
        return units_by_name("scene", windows.scenes)
    return independent_units(windows.scenes, windows.areas)


def _from_regions(
    measured: Mapping[str, MeasuredRuns],
) -> tuple[dict[str, list[Influences]], Coverage]:
    """Influences from rows alone, for metrics that are means over equal test regions."""
    rows = [row for runs in measured.values() for row in runs.rows]
    regions = list(rows[0]["regions"])
    if len(regions) == 1:
        return {}, Coverage("", "one test region")
    means = [
        name
        for name in rows[0]["metrics"]
        if len(regions) >= MIN_UNITS and all(_is_mean(row, name, regions) for row in rows)
    ]
    if not means:
        return {}, Coverage("", "the test windows of the runs are missing")
    found = {
        name: [
            {metric: _values(row, metric, regions) - row["metrics"][metric] for metric in means}
            for row in runs.rows
        ]
        for name, runs in measured.items()
    }
    return found, Coverage(pluralize(len(regions), "test region"), "")


def _is_mean(row: Row, metric: str, regions: Sequence[str]) -> bool:
    mean = np.mean(_values(row, metric, regions))
    return bool(np.isclose(mean, nan_if_none(row["metrics"][metric]), rtol=1e-6))


def _values(row: Row, metric: str, regions: Sequence[str]) -> Floats:
    return np.array([nan_if_none(row["regions"].get(name, {}).get(metric)) for name in regions])


def _metric_function(run: Tested) -> Callable[[MetricState], dict[str, float]]:
    """The function that computes a run's metrics from the state of its windows.

    Score thresholds that the folds chose in validation are averaged.
    """
    task = build_task(parse_sections(load_adapter_config(run[0].path).sections, str(run[0].path)))
    details = [fold.details("val") for fold in run]
    chosen = [each["threshold"] for each in details if "threshold" in each]
    threshold = {"threshold": np.mean(chosen, axis=0).tolist()} if chosen else {}
    return with_val_threshold(task, threshold).metrics().compute_from


def nan_if_none(value: float | None) -> float:
    """The value, NaN if it is unknown."""
    return math.nan if value is None else value
