"""Cells on a scene: windows on their grid give what the whole scene gives."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.data.raster.windows import Window
from geotune.inference.cell_grid import CellGrid
from geotune.inference.sliding_window import WindowOptions, sliding_window_inference
from helpers.inference_scenes import write_scene


@pytest.mark.parametrize(
    "stride, patch, unit, cells",
    [
        (16, 16, 16, 1),
        (4, 16, 16, 4),
        (32, 4, 32, 1),
        (3.5, 14, 14, 4),
        (3.5, 1, 7, 2),
        (1, 1, 1, 1),
    ],
)
def test_units_hold_whole_cells_and_patches(
    stride: float, patch: float, unit: int, cells: int
) -> None:
    grid = CellGrid.of_stride(stride, patch)
    assert (grid.unit, grid.cells, grid.stride) == (unit, cells, stride)
    assert grid.window(unit * 2 + 1) == unit * 3
    assert grid.window(1, multiple=2) % 2 == 0


def pooled(images: torch.Tensor, unit: int, cells: int) -> torch.Tensor:
    """A model that sees no further than a cell, so windows agree exactly."""
    means = F.avg_pool2d(torch.nan_to_num(images), unit)
    return means.repeat_interleave(cells, dim=-1).repeat_interleave(cells, dim=-2)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 60),
    unit_cells=st.sampled_from([(1, 1), (4, 1), (4, 2), (3, 2), (1, 2)]),
    window=st.integers(1, 4),
    overlap=st.floats(0, 0.75),
    columns=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_cells_are_those_of_the_whole_scene(
    height: int,
    width: int,
    unit_cells: tuple[int, int],
    window: int,
    overlap: float,
    columns: int,
    seed: int,
) -> None:
    grid = CellGrid(*unit_cells)
    image = np.random.default_rng(seed).uniform(0, 5, (2, height, width)).astype(np.float32)
    image[:, : height // 2, : width // 3] = -1  # nodata
    rows, cols = (-(-side // grid.unit) * grid.unit for side in (height, width))
    with tempfile.TemporaryDirectory() as folder:
        source = write_scene(Path(folder) / "scene.tif", image)
        options = WindowOptions(
            bands=source.bands, window=window * grid.unit, overlap=overlap, batch_size=3
        )
        seen: list[Window] = []
        blocks = sliding_window_inference(
            lambda images: pooled(images, *unit_cells),
            source,
            options,
            channels=2,
            columns=columns,
            grid=grid,
            on_windows=lambda windows, images, outputs: seen.extend(windows),
        )
        whole = np.full((2, *grid.shape((height, width))), np.nan)
        has_data = np.zeros(whole.shape[1:], dtype=bool)
        for block in blocks:
            place = np.s_[
                block.row : block.row + block.valid.shape[0],
                block.col : block.col + block.valid.shape[1],
            ]
            assert np.isnan(whole[:, *place]).all()
            whole[:, *place] = block.outputs.numpy()
            has_data[place] = block.valid
        padded = source.read(Window(0, 0, rows, cols))
    expected = pooled(torch.from_numpy(padded)[None], *unit_cells)[0].numpy()
    expected = expected[:, : whole.shape[1], : whole.shape[2]]
    assert not np.isnan(whole).any()
    np.testing.assert_allclose(whole[:, has_data], expected[:, has_data], rtol=1e-4, atol=1e-5)
    valid = ~np.isnan(padded).all(axis=0)
    for row, col in np.ndindex(*has_data.shape):
        top, left = (int(i * grid.stride) for i in (row, col))
        bottom, right = (
            max(int((i + 1) * grid.stride), int(i * grid.stride) + 1) for i in (row, col)
        )
        assert has_data[row, col] == valid[top:bottom, left:right].any()
    assert len(seen) == len(set(seen))
    covered = np.zeros(padded.shape[1:], dtype=bool)
    for each in seen:
        covered[each.row : each.row + each.height, each.col : each.col + each.width] = True
    assert covered[valid].all()
