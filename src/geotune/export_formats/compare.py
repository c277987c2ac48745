"""Compare what an exported file predicts with what the run predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.boxes.oriented import ORIENTED
from geotune.boxes.structures import Detections
from geotune.errors import GeotuneError
from geotune.export_formats.exported_model import ExportedModel
from geotune.export_formats.select_detections import MAX_CANDIDATES
from geotune.export_formats.windows import Inputs
from geotune.tasks.detect import Detect

CLOSE_PIXELS = 1.0
"""Candidates further apart are different ones."""
ROUNDING = (0.0, 1e-7, 1e-6)
"""Relative changes of the images for which a detector's selections are all right ones."""
RANK_MARGIN = 0.02
"""Objects whose score is within this margin of the last of a full list may be on one side only."""


def predictions(run: ExportedModel, windows: Sequence[Inputs]) -> list[list[tuple[Tensor, ...]]]:
    """What a model predicts for inputs of one window each.

    A detector has several predictions for a window: for images that differ by `ROUNDING`. Which of
    two overlapping boxes it keeps depends on that, where their scores or an overlap and its limit
    are nearly equal.
    """
    changes = ROUNDING if isinstance(run.task, Detect) else ROUNDING[:1]
    with torch.no_grad():
        return [
            [
                run(**{name: torch.from_numpy(x) for name, x in _changed(inputs, change).items()})
                for change in changes
            ]
            for inputs in windows
        ]


def _changed(inputs: Inputs, change: float) -> Inputs:
    """Inputs with images that differ by a relative noise."""
    images = inputs["images"]
    noise = np.random.default_rng(0).standard_normal(images.shape)
    return {**inputs, "images": (images * (1 + change * noise)).astype(images.dtype)}


def largest_difference(
    run: ExportedModel,
    expected: Sequence[Sequence[tuple[Tensor, ...]]],
    file: Callable[[Inputs], Sequence[NDArray[Any]]],
    windows: Sequence[Inputs],
) -> float:
    """The largest difference between a file's predictions and the run's, over some windows.

    Of probabilities and scores; of numbers in standard deviations of the labels; of coordinates as
    a share of the window. Objects are compared with those of the same class nearby; one without a
    counterpart counts with its score.

    Args:
        run: the exported model.
        expected: what the run predicts, see `predictions`; the most similar one counts.
        file: returns the outputs of the file.
        windows: inputs of one window each.
    """
    largest = 0.0
    for inputs, own in zip(windows, expected, strict=True):
        found = [torch.from_numpy(np.asarray(x)) for x in file(inputs)]
        for name, a, b in zip(run.output_names, own[0], found, strict=True):
            if a.dtype.is_floating_point and not torch.isfinite(b).all():
                raise GeotuneError(
                    f"the exported model's {name} are not finite; use --precision fp32",
                    code="export-inaccurate",
                )
        if isinstance(run.task, Detect):
            side = float(max(inputs["images"].shape[-2:]))
            objects = _lists(run, found)
            difference = min(
                _objects(_lists(run, each), objects, side, _longest(run)) for each in own
            )
        else:
            scale = float(getattr(run.task, "std", 1.0))
            difference = float((own[0][0] - found[0]).abs().max()) / scale
        largest = float(np.maximum(largest, difference))  # max() would drop NaN
    return largest


def _lists(model: ExportedModel, outputs: Sequence[Tensor]) -> list[Detections]:
    """The objects of each image."""
    if model.layout == "yolo":
        oriented = bool(getattr(model.model.decoder, "oriented", False))
        rows = outputs[0].transpose(1, 2)
        scores, classes = rows[..., 4 : rows.shape[-1] - int(oriented)].max(dim=-1)
        boxes = torch.cat([rows[..., :4], rows[..., -1:]], -1) if oriented else rows[..., :4]
        return [Detections(*each) for each in zip(boxes, scores, classes, strict=True)]
    boxes, scores, classes, *image = outputs
    if not image:
        return [Detections(*each) for each in zip(boxes, scores, classes, strict=True)]
    count = int(image[0].max()) + 1 if len(image[0]) else 0
    every = Detections(boxes, scores, classes)
    return [every[image[0] == i] for i in range(count)]


def _longest(model: ExportedModel) -> int:
    """The most objects of an image; of a list of that length, others may have been cut off."""
    if model.layout == "yolo" or model.task.boxes == "oriented":
        return MAX_CANDIDATES
    decoder: Any = model.model.decoder
    return int(decoder.postprocess.max_detections)


def _objects(
    expected: Sequence[Detections], found: Sequence[Detections], side: float, longest: int
) -> float:
    largest = 0.0
    for a, b in zip_longest(expected, found):
        for one, other in ((a, b), (b, a)):
            if one is not None:
                largest = max(largest, _unmatched(one, other, side, longest))
    return largest


def _unmatched(one: Detections, other: Detections | None, side: float, longest: int) -> float:
    """The largest difference of the objects in `one` from the nearest in `other`."""
    one = one[one.scores > 0]  # the others fill a list of fixed length
    if not len(one.scores):
        return 0.0
    near = torch.full_like(one.scores, math.inf)
    lowest = 0.0
    if other is not None and len(other.scores):
        apart = (_sides(one.boxes)[:, None] - _sides(other.boxes)[None]).abs().amax(dim=-1)
        same = (one.classes[:, None] == other.classes[None]) & (apart < CLOSE_PIXELS)
        scores = (one.scores[:, None] - other.scores[None]).abs()
        near = (apart / side).maximum(scores).where(same, math.inf).amin(dim=1)
        if len(other.scores) >= longest:
            lowest = float(other.scores.min()) + RANK_MARGIN
    alone = torch.where(one.scores <= lowest, 0.0, one.scores)
    return float(near.where(near < math.inf, alone).max())


def _sides(boxes: Tensor) -> Tensor:
    """Coordinates that change little with a box; the angle of a square does not count."""
    if boxes.shape[-1] != ORIENTED:
        return boxes
    stretch, twice = boxes[:, 2:3] - boxes[:, 3:4], 2 * boxes[:, 4:]
    return torch.cat([boxes[:, :4], stretch * twice.cos(), stretch * twice.sin()], dim=1)
