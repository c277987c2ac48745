"""Detections of overlapping windows are merged into one detection per object."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.boxes.oriented import centres
from geotune.boxes.structures import Detections
from geotune.boxes.transforms import translate
from geotune.inference.merge_detections import DetectionMerger
from geotune.inference.tiling import window_starts

WINDOW = 64


def merge(
    boxes: Tensor, shape: tuple[int, int], overlap: float = 0.5, cut: bool = True
) -> tuple[Tensor, list[float]]:
    """Merge the detections of a perfect detector, which finds boxes whose centre is in the window.

    With `cut`, boxes are clipped to the window and get a lower score.
    """
    tops, lefts = (window_starts(side, WINDOW, overlap) for side in shape)
    merger = DetectionMerger(tops, lefts, WINDOW, shape, 0.3)
    merged: list[Detections] = []
    for top in tops:
        merged += [f for f in [merger.pop_final(top)] if f is not None]
        for left in lefts:
            local = translate(boxes, -float(left), -float(top))
            local = local[((centres(local) >= 0) & (centres(local) < WINDOW)).all(dim=1)]
            scores = torch.full((len(local),), 0.9)
            if cut:
                clipped = local.clamp(0, WINDOW)
                scores = scores - 0.1 * (clipped != local).any(dim=1)
                local = clipped
            merger.add(top, left, Detections(local, scores, torch.zeros(len(local)).long()))
    merged += [f for f in [merger.pop_final()] if f is not None]
    return torch.cat([f.boxes for f in merged]), [float(s) for f in merged for s in f.scores]


def sorted_boxes(boxes: Tensor) -> list[list[float]]:
    return sorted(boxes.tolist())


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(20, 200),
    width=st.integers(20, 200),
    side=st.integers(4, 28),
    shift=st.integers(0, 40),
)
def test_objects_smaller_than_the_overlap_are_found_once_and_complete(
    height: int, width: int, side: int, shift: int
) -> None:
    x, y = torch.meshgrid(
        torch.tensor([*range(shift, width - side + 1, side + 5)], dtype=torch.int64),
        torch.tensor([*range(shift // 2, height - side + 1, side + 3)], dtype=torch.int64),
        indexing="xy",
    )
    corner = torch.stack([x.flatten(), y.flatten()], dim=1).double()
    boxes = torch.cat([corner, corner + side], dim=1)
    if not len(boxes):
        return
    result, _ = merge(boxes, (height, width))
    assert sorted_boxes(result) == sorted_boxes(boxes)


def test_object_cut_by_every_window_is_kept() -> None:
    large = torch.tensor([[10.0, 40.0, 150.0, 70.0]], dtype=torch.float64)
    result, scores = merge(large, (128, 192), cut=False)
    assert sorted_boxes(result) == sorted_boxes(large) and scores == pytest.approx([0.9])


def test_cut_box_is_dropped_if_a_neighbour_contains_it() -> None:
    # the cut half has the higher score and too little overlap to be suppressed
    box = torch.tensor([[55.0, 10.0, 75.0, 20.0]], dtype=torch.float64)
    half = Detections(box.clamp(max=64), torch.tensor([0.99]), torch.tensor([0]))
    merger = DetectionMerger((0,), (0, 32), WINDOW, (64, 96), 0.9)
    merger.add(0, 0, half)
    merger.add(
        0, 32, Detections(translate(box, -32.0, 0.0), torch.tensor([0.5]), torch.tensor([0]))
    )
    result = merger.pop_final()
    assert result is not None and result.boxes.tolist() == box.tolist()
    alone = DetectionMerger((0,), (0,), WINDOW, (64, 64), 0.9)
    alone.add(0, 0, half)
    result = alone.pop_final()
    assert result is not None and result.boxes.tolist() == half.boxes.tolist()


def test_memory_does_not_grow_with_the_scene() -> None:
    tops = window_starts(64 * 60, WINDOW, 0.5)
    merger = DetectionMerger(tops, (0,), WINDOW, (64 * 60, 64), 0.3)
    peak = count = 0
    for top in tops:
        final = merger.pop_final(top)
        count += 0 if final is None else len(final.scores)
        boxes = torch.tensor([[20.0, 20.0, 30.0, 30.0], [40.0, 36.0, 50.0, 44.0]])
        merger.add(top, 0, Detections(boxes, torch.tensor([0.5, 0.6]), torch.tensor([0, 0])))
        peak = max(peak, len(merger))
    final = merger.pop_final()
    count += 0 if final is None else len(final.scores)
    assert peak <= 16 and count == 2 * len(tops)
