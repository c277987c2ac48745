"""The validation windows as small PNGs that stand in the page itself."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geotune.palette import Color
from geotune.types import IGNORE

from .content import Example

MAX_SIDE = 320
"""Longer sides are shrunk by a whole number: the page stays a few megabytes at most."""

MISTAKE: Color = (226, 45, 45)
_HATCH = ((236, 236, 236), (140, 140, 140))


@dataclass(frozen=True)
class Panels:
    """One window's pictures as `data:` addresses, and the wrong share of its labelled pixels."""

    name: str
    score: float
    image: str
    label: str
    prediction: str
    mistakes: str
    wrong: float


def panels(example: Example, colors: Sequence[Color]) -> Panels:
    """The four pictures of a window. Raises `ValueError` where their sizes differ."""
    label, prediction = example.label, example.prediction
    if example.image.shape != (*label.shape, 3) or prediction.shape != label.shape:
        raise ValueError(
            f"{example.name}: image {example.image.shape}, label {label.shape} and prediction "
            f"{prediction.shape} must be (H, W, 3), (H, W) and (H, W)"
        )
    counted = label != IGNORE
    wrong = counted & (prediction != label)
    step = min(math.ceil(max(label.shape) / MAX_SIDE), *label.shape)
    picture = _blocks(example.image, step).mean(axis=(1, 3)).round().astype(np.uint8)
    return Panels(
        name=example.name,
        score=example.score,
        image=_png(picture),
        label=_png(class_map(_every(label, step), colors)),
        prediction=_png(class_map(_every(prediction, step), colors)),
        mistakes=_png(_marked(picture, _blocks(wrong, step).max(axis=(1, 3)))),
        wrong=float(wrong.sum() / counted.sum()) if counted.any() else math.nan,
    )


def class_map(classes: NDArray[np.integer], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """Class indices `(H, W)` as colours `(H, W, 3)`; what is not counted is hatched in grey."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    rgb = table[classes.astype(np.int64)]
    diagonal = np.add.outer(np.arange(classes.shape[0]), np.arange(classes.shape[1])) % 8 < 2
    ignored = classes == IGNORE
    rgb[ignored] = np.array(_HATCH, dtype=np.uint8)[diagonal.astype(int)][ignored]
    return rgb


def _marked(picture: NDArray[np.uint8], wrong: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture pale and grey, with mistakes in red."""
    grey = 130 + picture.mean(axis=2) * (110 / 255)
    rgb = np.repeat((grey // 4 * 4).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[wrong] = MISTAKE
    return rgb


def _every(array: NDArray[np.integer], step: int) -> NDArray[np.integer]:
    """Every `step`-th pixel, as many as `_blocks` has blocks."""
    height, width = (side // step for side in array.shape)
    return array[: height * step : step, : width * step : step]


def _blocks(array: NDArray[np.generic], step: int) -> NDArray[np.generic]:
    """`(H, W, ...)` as `(H // step, step, W // step, step, ...)`."""
    height, width = (side // step for side in array.shape[:2])
    cut = array[: height * step, : width * step]
    return cut.reshape(height, step, width, step, *array.shape[2:])


def _png(rgb: NDArray[np.uint8]) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colors, where = np.unique(packed, return_inverse=True)
    if len(colors) <= 256:
        picture = Image.fromarray(where.reshape(packed.shape).astype(np.uint8))
        picture.putpalette(b"".join(int(color).to_bytes(3, "big") for color in colors))
    else:
        picture = Image.fromarray(rgb)
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
