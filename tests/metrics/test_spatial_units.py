"""Units of a test split."""

import numpy as np
import pytest

from geotune.metrics.spatial_units import (
    MAX_UNITS,
    blocks,
    correlation_range,
    independent_units,
    units_by_name,
)
from geotune.metrics.state import MetricState


def grid(side: int, pixels: int) -> np.ndarray:
    return pixels * np.array(list(np.ndindex(side, side)))


def smooth(side: int, reach: int, seed: int) -> np.ndarray:
    """A field that is correlated up to `reach` windows: means of white noise."""
    noise = np.random.default_rng(seed).normal(size=(side + reach - 1, side + reach - 1))
    views = np.lib.stride_tricks.sliding_window_view(noise, (reach, reach))
    return np.asarray(views.mean(axis=(2, 3)).ravel())


@pytest.mark.parametrize(
    ("scenes", "areas", "kind", "count", "enough"),
    [
        ("abcdefgh", [0, 1, 2, 3, 4, 5, 6, 7], "scene", 8, True),
        ("abcdefgh", [0, 0, 1, 1, 2, 3, 4, 5], "region", 6, True),
        ("abcdefgh", [0, 0, 0, 0, 1, 1, 1, 1], "region", 2, False),
        ("aabbccdd", [0, 0, 1, 1, 2, 2, 3, 3], "scene", 4, False),
        ("aaaaaaaa", [0] * 8, "scene", 1, False),
    ],
)
def test_units_are_scenes_or_regions(
    scenes: str, areas: list[int], kind: str, count: int, enough: bool
) -> None:
    units = independent_units(list(scenes), areas)
    assert (units.kind, units.count, units.enough) == (kind, count, enough)


def test_windows_of_a_unit_are_merged() -> None:
    states = [MetricState({"n": np.asarray(float(n))}) for n in (1, 2, 4, 8)]
    merged = units_by_name("scene", ["b", "a", "b", "c"]).merge(states)
    assert [float(each.sums["n"]) for each in merged] == [2, 5, 8]


def test_many_units_are_merged_evenly() -> None:
    names = [f"{i:04}" for i in range(1234)]
    merged = units_by_name("scene", names).merge([MetricState({"n": np.ones(())})] * 1234)
    sizes = [float(each.sums["n"]) for each in merged]
    assert len(sizes) == MAX_UNITS and sum(sizes) == 1234 and set(sizes) == {12, 13}


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_correlation_range_follows_the_data(reach: int) -> None:
    fields = np.stack([smooth(24, reach, seed) for seed in range(8)])
    found = correlation_range(np.zeros(24**2, np.int64), grid(24, 64), fields)
    assert found == pytest.approx(64 * reach, abs=64 if reach > 1 else 0)


def test_blocks_are_wider_than_the_correlation() -> None:
    field = np.stack([smooth(24, 2, seed) for seed in range(8)])
    units = blocks(["scene"] * 24**2, grid(24, 64), field)
    assert units.kind == "block" and not units.enough
    assert units.side in (3 * 64 * 2, 3 * 64 * 3)
    assert str(units) == f"{units.count} test blocks of {units.side} x {units.side} pixels"
    _, sizes = np.unique(units.of_window, return_counts=True)
    assert sizes.max() == (units.side // 64) ** 2


def test_blocks_do_not_cross_scenes() -> None:
    scenes = ["a"] * 36 + ["b"] * 36
    positions = np.concatenate([grid(6, 10)] * 2)
    values = np.random.default_rng(0).normal(size=(1, 72))
    units = blocks(scenes, positions, values)
    assert not set(units.of_window[:36]) & set(units.of_window[36:])


def test_scene_that_is_correlated_throughout_is_one_block() -> None:
    trend = np.repeat(np.linspace(-1, 1, 8), 8)[None] + np.tile(np.linspace(-1, 1, 8), 8)
    units = blocks(["scene"] * 64, grid(8, 10), trend)
    assert units.count <= 4
