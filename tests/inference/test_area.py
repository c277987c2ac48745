"""A part of a scene is predicted as in the whole scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.boxes.structures import Detections
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import blocks
from geotune.inference.class_blocks import ClassLayers, class_blocks
from geotune.inference.detection import detect_windows
from geotune.inference.sliding_window import WindowOptions, sliding_window_inference
from helpers.inference_scenes import position_model, write_scene

BANDS = ("red", "nir")


def probabilities(images: torch.Tensor) -> torch.Tensor:
    return position_model(images).softmax(dim=1)


def scene(folder: Path, height: int, width: int) -> RasterSource:
    image = np.random.default_rng(height * width).normal(size=(2, height, width)).astype(np.float32)
    image[:, : height // 5, : width // 3] = -1  # no data
    return write_scene(folder / f"{height}_{width}.tif", image)


@settings(max_examples=10, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    window=st.integers(4, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    side=st.sampled_from([8, 32, 48]),
)
def test_tiles_are_parts_of_the_whole_map(
    tmp_path_factory, height: int, width: int, window: int, overlap: float, side: int
) -> None:
    source = scene(tmp_path_factory.mktemp("s"), height, width)
    options = WindowOptions(bands=BANDS, window=window, overlap=overlap, batch_size=3)
    whole = torch.full((3, height, width), torch.nan)
    for block in sliding_window_inference(probabilities, source, options, channels=3):
        h, w = block.valid.shape
        whole[:, block.row : block.row + h, block.col : block.col + w] = block.outputs
    for tile in blocks((height, width), side):
        part = torch.full_like(whole, torch.nan)
        for block in sliding_window_inference(
            probabilities, source, options, channels=3, area=tile
        ):
            h, w = block.valid.shape
            target = part[:, block.row : block.row + h, block.col : block.col + w]
            assert target.isnan().all(), "a pixel twice"
            target[:] = block.outputs
        rows = slice(tile.row, tile.row + tile.height)
        columns = slice(tile.col, tile.col + tile.width)
        torch.testing.assert_close(part[:, rows, columns], whole[:, rows, columns])
        part[:, rows, columns] = torch.nan
        assert part.isnan().all(), "pixels outside of the tile"


def test_stored_classes_of_tiles_are_those_of_the_scene(tmp_path: Path) -> None:
    source = scene(tmp_path, 70, 61)
    options = WindowOptions(bands=BANDS, window=16)
    layers = ClassLayers(classes=("a", "b", "c"), probabilities=True, uncertainty=True)

    def map_of(areas: list) -> np.ndarray:
        levels = np.zeros((6, 70, 61), dtype=np.uint8)
        for area in areas:
            for block in class_blocks(probabilities, source, options, layers, area):
                h, w = block.classes.shape
                stacked = [block.classes[None], block.scores[None]]
                stacked += [block.probabilities, block.uncertainty]
                levels[:, block.row : block.row + h, block.col : block.col + w] = np.concatenate(
                    stacked
                )
        return levels

    np.testing.assert_array_equal(map_of([None]), map_of(list(blocks((70, 61), 32))))


def test_every_window_is_detected_in_one_tile(tmp_path: Path) -> None:
    source = scene(tmp_path, 70, 61)
    options = WindowOptions(bands=BANDS, window=16, batch_size=2)

    def detector(images: torch.Tensor) -> list[Detections]:
        boxes = torch.tensor([[4.0, 4.0, 9.0, 9.0]])
        return [
            Detections(boxes, image.nan_to_num().mean()[None], torch.zeros(1, dtype=torch.long))
            for image in images
        ]

    whole = {(w.top, w.left): w.detections for w in detect_windows(detector, source, options)}
    tiles = [
        window
        for tile in blocks((70, 61), 32)
        for window in detect_windows(detector, source, options, tile)
    ]
    assert len(tiles) == len(whole)
    for top, left, detections in tiles:
        torch.testing.assert_close(detections.scores, whole[top, left].scores)
