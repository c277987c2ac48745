"""Merging the metric states of windows, and the file that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geotune.boxes.structures import Detections, DetectorOutput
from geotune.metrics.state import MetricState
from geotune.tasks.base import Task
from geotune.training.window_metrics import WindowMetrics
from geotune.types import IGNORE
from helpers.components import make_task
from helpers.errors import raises

NAMES = ("water", "forest", "town")
WINDOWS = 5
Batch = tuple[Any, Any]


def masks() -> Batch:
    truth = torch.randint(0, len(NAMES), (WINDOWS, 8, 8))
    truth[0, :4] = IGNORE
    return torch.randn(WINDOWS, len(NAMES), 8, 8), truth


def multiclass() -> Batch:
    return torch.randn(WINDOWS, len(NAMES)), torch.randint(0, len(NAMES), (WINDOWS,))


def multilabel() -> Batch:
    return torch.randn(WINDOWS, len(NAMES)), torch.randint(0, 2, (WINDOWS, len(NAMES))).float()


def values() -> Batch:
    labels = 300 + 5 * torch.randn(WINDOWS, 8, 8)
    labels[1] = math.nan
    return torch.randn(WINDOWS, 1, 8, 8), labels


def objects(columns: int) -> Batch:
    def boxes(count: int) -> torch.Tensor:
        corner = 20 * torch.rand(count, 2)
        return torch.cat([corner, corner + 20], dim=1)[:, :columns]

    detections = [
        Detections(boxes(n), torch.rand(n), torch.randint(0, len(NAMES), (n,)))
        for n in (9, 0, 4, 7, 30)
    ]
    truth = [
        {
            "boxes": boxes(n),
            "labels": torch.randint(0, len(NAMES), (n,)),
            "difficult": torch.rand(n) < 0.1,
        }
        for n in (5, 3, 0, 6, 9)
    ]
    return DetectorOutput({}, detections), truth


CASES: dict[str, tuple[Task, Callable[[], Batch]]] = {
    "segment": (make_task("segment", classes=NAMES), masks),
    "classify": (make_task("classify", classes=NAMES), multiclass),
    "multilabel": (make_task("classify", classes=NAMES, multilabel=True), multilabel),
    "regress": (make_task("regress", mean=300.0, std=5.0), values),
    "density": (make_task("density"), values),
    "boxes": (make_task("detect", classes=NAMES), lambda: objects(4)),
    "points": (
        make_task("detect", classes=NAMES, boxes="points", match_radius_m=20.0, pixel_m=2.0),
        lambda: objects(4),
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Task, Batch]:
    torch.manual_seed(0)
    task, make = CASES[request.param]
    return task, make()


def window_states(task: Task, batch: Batch) -> list[MetricState]:
    states = []
    for i in range(WINDOWS):
        metrics = task.metrics()
        metrics.update(batch[0][i : i + 1], batch[1][i : i + 1])
        states.append(metrics.state())
    return states


def close(a: dict[str, float], b: dict[str, float]) -> bool:
    return list(a) == list(b) and all(
        x == pytest.approx(y, rel=1e-5, abs=1e-7, nan_ok=True)
        for x, y in zip(a.values(), b.values(), strict=True)
    )


def test_merged_window_states_equal_one_pass(case: tuple[Task, Batch]) -> None:
    task, batch = case
    metrics = task.metrics()
    empty = metrics.state()
    states = window_states(task, batch)
    metrics.update(*batch)
    expected = metrics.compute()
    assert math.isfinite(expected[task.main_metric])
    assert close(metrics.compute_from(MetricState.merge(states)), expected)
    assert close(metrics.compute_from(MetricState.merge([empty, *states[::-1]])), expected)
    assert close(metrics.compute_from(metrics.state()), expected)
    for window, state in zip(metrics.windows(), states, strict=True):
        assert window.sums.keys() == state.sums.keys()
        for name, array in {**window.sums, **window.lists}.items():
            np.testing.assert_array_equal(array, {**state.sums, **state.lists}[name])


def test_a_window_merged_twice_counts_twice(case: tuple[Task, Batch]) -> None:
    task, batch = case
    states = window_states(task, batch)
    metrics = task.metrics()
    for i in (0, 3, 3):
        metrics.update(batch[0][i : i + 1], batch[1][i : i + 1])
    assert close(
        metrics.compute_from(MetricState.merge([states[0], states[3], states[3]])),
        metrics.compute(),
    )


def test_window_file_round_trip(case: tuple[Task, Batch], tmp_path: Path) -> None:
    task, batch = case
    states = window_states(task, batch)
    kept = WindowMetrics(
        tuple(f"a (0, {i})" for i in range(WINDOWS)),
        ("a",) * WINDOWS,
        ("north",) * WINDOWS,
        (3,) * WINDOWS,
        np.array([(0, i) for i in range(WINDOWS)]),
        np.array([0.5, math.nan, 1, 1, 1]),
        tuple(states),
        np.arange(4.0 * WINDOWS).reshape(-1, 4),
    )
    kept.save(tmp_path / "windows.npz")
    read = WindowMetrics.load(tmp_path / "windows.npz")
    assert (read.names, read.scenes, read.groups) == (kept.names, kept.scenes, kept.groups)
    assert read.areas == kept.areas
    np.testing.assert_array_equal(read.positions, kept.positions)
    np.testing.assert_array_equal(read.scores, kept.scores)
    np.testing.assert_array_equal(read.circles, kept.circles)
    for one, other in zip(read.states, states, strict=True):
        for mine, theirs in ((one.sums, other.sums), (one.lists, other.lists)):
            assert mine.keys() == theirs.keys()
            for name, array in mine.items():
                np.testing.assert_array_equal(array, theirs[name])
                assert array.dtype == theirs[name].dtype


def test_file_without_areas_has_those_of_the_groups(
    case: tuple[Task, Batch], tmp_path: Path
) -> None:
    task, batch = case
    names, groups = tuple("abcde"), tuple("yyxxy")
    positions, path = np.zeros((WINDOWS, 2), np.int64), tmp_path / "windows.npz"
    states = tuple(window_states(task, batch))
    unknown = np.full((WINDOWS, 4), np.nan)
    kept = WindowMetrics(names, names, groups, (), positions, np.zeros(WINDOWS), states, unknown)
    kept.save(path)
    later = ("areas", "circles")
    with np.load(path) as file:
        np.savez(path, **{name: array for name, array in file.items() if name not in later})
    read = WindowMetrics.load(path)
    assert read.areas == (1, 1, 0, 0, 1)
    np.testing.assert_array_equal(read.circles, unknown)


def test_areas_of_folds_that_adjoin_are_one(case: tuple[Task, Batch]) -> None:
    """Two squares side by side in different folds are no independent units."""
    states = tuple(window_states(*case))[:2]

    def fold(names: tuple[str, str], x: float, groups: tuple[str, str]) -> WindowMetrics:
        around = np.array([[x, 0.0, 0.0, 70.0], [x + 1000, 0.0, 0.0, 70.0]])
        return WindowMetrics(
            names, names, groups, (0, 1), np.zeros((2, 2), np.int64), np.zeros(2), states, around
        )

    first, second = fold(("a", "b"), 0, ("a", "b")), fold(("c", "d"), 1100, ("c", "d"))
    a, b, c, d = WindowMetrics.concatenate([first, second]).areas
    assert b == c and len({a, b, d}) == 3
    far = fold(("c", "d"), 5000, ("c", "a"))
    a, b, c, d = WindowMetrics.concatenate([first, far]).areas
    assert a == d and len({a, b, c}) == 3
    assert len({*WindowMetrics.concatenate([first]).areas}) == 2


def test_invalid_window_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "windows.npz"
    with raises("run-incomplete", file=path):
        WindowMetrics.load(path)
    path.write_bytes(b"something else")
    with raises("file-unreadable", file=path):
        WindowMetrics.load(path)
    np.savez(path, names=np.array(["a"]))
    with raises("file-unreadable", file=path):
        WindowMetrics.load(path)
