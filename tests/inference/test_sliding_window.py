"""Sliding-window inference equals a brute-force blend over the whole array."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.blend import window_weights
from geotune.inference.sliding_window import OutputBlock, WindowOptions, sliding_window_inference
from geotune.inference.tiling import window_starts
from helpers.errors import raises
from helpers.inference_scenes import position_model, write_scene


def predict(images: torch.Tensor) -> torch.Tensor:
    """Probabilities of `position_model`."""
    return position_model(images).softmax(dim=1)


def infer(
    source: RasterSource, window: int, overlap: float, columns: int, batch: int
) -> list[OutputBlock]:
    options = WindowOptions(bands=source.bands, window=window, overlap=overlap, batch_size=batch)
    return list(sliding_window_inference(predict, source, options, channels=3, columns=columns))


def assemble(blocks: list[OutputBlock], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(K, H, W); fails if a pixel is missing or comes twice."""
    whole = np.full((3, *shape), np.nan, dtype=np.float32)
    for block in blocks:
        height, width = block.valid.shape
        target = whole[:, block.row : block.row + height, block.col : block.col + width]
        assert target.shape == block.outputs.shape
        assert np.isnan(target).all()
        target[:] = block.outputs.numpy()
    assert not np.isnan(whole).any()
    return whole


def brute_force(source: RasterSource, window: int, overlap: float) -> NDArray[np.float64]:
    """All windows over the whole array in float64, without strips, batches or buffers."""
    height, width = source.shape
    sums = np.zeros((3, height + window, width + window))
    totals = np.zeros((height + window, width + window))
    for top in window_starts(height, window, overlap):
        for left in window_starts(width, window, overlap):
            image = source.read(Window(top, left, window, window))
            if np.isnan(image).all():
                continue
            shares = position_model(torch.from_numpy(image)[None])[0].double().softmax(0).numpy()
            weight = window_weights(window).double().numpy()
            sums[:, top : top + window, left : left + window] += shares * weight
            totals[top : top + window, left : left + window] += weight
    blend = sums / np.where(totals == 0, 1, totals)
    return blend[:, :height, :width]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 60),
    window=st.integers(4, 17),
    overlap=st.floats(0, 0.75),
    columns=st.integers(9, 70),
    batch=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_strips_and_buffers_do_not_change_the_result(
    height: int, width: int, window: int, overlap: float, columns: int, batch: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((2, height, width), dtype=np.float32)
    image[:, : height // 2, : width // 3] = -1
    image[0, rng.random((height, width)) < 0.1] = -1
    with tempfile.TemporaryDirectory() as folder:
        source = write_scene(Path(folder) / "scene.tif", image)
        expected = brute_force(source, window, overlap)
        blocks = infer(source, window, overlap, columns, batch)
    actual = assemble(blocks, source.shape)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    for block in blocks:
        rows, cols = block.valid.shape
        data = image[:, block.row : block.row + rows, block.col : block.col + cols]
        np.testing.assert_array_equal(block.valid, (data != -1).any(axis=0))


def test_windows_without_data_are_skipped_but_count_as_progress(tmp_path: Path) -> None:
    image = np.full((2, 32, 32), -1, dtype=np.float32)
    image[:, :8, :8] = 1
    source = write_scene(tmp_path / "scene.tif", image)
    calls: list[tuple[int, int]] = []
    options = WindowOptions(
        bands=source.bands,
        window=8,
        overlap=0,
        batch_size=3,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    blocks = list(sliding_window_inference(position_model, source, options, channels=3))
    assert sum(block.windows for block in blocks) == 1
    assert calls[-1] == (16, 16)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_outputs_require_no_gradient(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.tif", np.ones((2, 8, 8), dtype=np.float32))
    layer = torch.nn.Conv2d(2, 2, 1)
    options = WindowOptions(bands=source.bands, window=8, overlap=0, batch_size=1)
    blocks = list(sliding_window_inference(layer, source, options, channels=2))
    assert not blocks[0].outputs.requires_grad


@pytest.mark.parametrize(
    ("model", "code", "mentions"),
    [
        (lambda x: x[:, :1], "output-shape", "3 channels"),
        (lambda x: position_model(x)[:, :, ::2, ::2], "output-shape", "(1, 3, 4, 4)"),
        (lambda x: position_model(x) * torch.nan, "output-not-finite", "columns 0 to"),
    ],
)
def test_invalid_model_output_is_rejected(
    tmp_path: Path, model: object, code: str, mentions: str
) -> None:
    source = write_scene(tmp_path / "scene.tif", np.ones((2, 8, 8), dtype=np.float32))
    options = WindowOptions(bands=source.bands, window=8, overlap=0, batch_size=1)
    with raises(code, mentions=[mentions]):
        list(sliding_window_inference(model, source, options, channels=3))  # type: ignore[arg-type]


def test_batch_size_zero_is_rejected(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.tif", np.ones((2, 8, 8), dtype=np.float32))
    with raises("option-invalid", mentions=["batch_size: found 0"]):
        infer(source, 8, 0.5, 512, 0)
