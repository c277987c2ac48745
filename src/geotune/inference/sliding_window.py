"""Moving a model over a scene: what it answers, finished piece by piece.

strip of columns -> rows of the image -> windows -> model -> blend -> finished rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.blend import Blender
from geotune.inference.tiling import Strip, TilingPlan, strip_width
from geotune.types import model_inputs

ModelFn = Callable[..., Tensor]
"""Images `(B, C, H, W)`, float32 raw values with NaN, to answers `(B, K, H, W)`: probabilities, or
numbers in some unit; with `time=` and `location=` where asked for."""

ProgressFn = Callable[[int, int], None]
"""Called with the windows done and the windows to do."""


@dataclass(frozen=True)
class OutputBlock:
    """A rectangle of the scene that no later window touches.

    Attributes:
        row: its first row.
        col: its first column.
        answers: `(K, h, w)`, on the model's device; zero where no window had data.
        valid: `(h, w)`, where any band has data.
        windows: windows that the model saw since the last rectangle.
    """

    row: int
    col: int
    outputs: Tensor
    valid: NDArray[np.bool_]
    windows: int


def sliding_window_inference(
    model: ModelFn,
    source: RasterSource,
    *,
    channels: int,
    window: int,
    overlap: float,
    batch_size: int,
    device: torch.device,
    metadata: Sequence[str] = (),
    progress: ProgressFn | None = None,
    columns: int | None = None,
) -> Iterator[OutputBlock]:
    """Blended answers for a scene; each pixel comes once.

    Windows without any data are skipped. `columns` is the width of a strip; by default what
    keeps the buffers small. Raises `GeotuneError` for values out of range and for a model whose
    output has another shape than `(B, channels, H, W)` or is not finite.
    """
    if batch_size < 1:
        raise GeotuneError(f"batch_size: found {batch_size}, expected at least 1")
    # the image's rows, those being read, the sums, their weights and the blend
    held = 4 * (2 * len(source.band_files) + 2 * channels + 1)
    plan = TilingPlan(source.shape, window, overlap, columns or strip_width(max(window, 1), held))
    done, total = 0, len(plan)

    def tell(windows: int) -> None:
        nonlocal done
        done += windows
        if progress is not None:
            progress(done, total)

    for strip in plan.strips():
        # a generator of its own, so that one strip's buffers go before the next one's come
        yield from _process_strip(
            model, source, plan, strip, channels, batch_size, device, metadata, tell
        )


def _process_strip(
    model: ModelFn,
    source: RasterSource,
    plan: TilingPlan,
    strip: Strip,
    channels: int,
    batch_size: int,
    device: torch.device,
    metadata: Sequence[str],
    tell: Callable[[int], None],
) -> Iterator[OutputBlock]:
    window = plan.window
    inside = slice(strip.left - strip.first, strip.right - strip.first)
    blender = Blender(channels, strip.width, window, device)
    for top, rows, image in _rows(source, plan, strip):
        seen = 0
        for start in range(0, len(strip.lefts), batch_size):
            lefts = [left - strip.first for left in strip.lefts[start : start + batch_size]]
            views = {left: image[..., left : left + window] for left in lefts}
            filled = {left: view for left, view in views.items() if not np.isnan(view).all()}
            if filled:
                known = [
                    time_and_location(
                        source, Window(top, strip.first + left, window, window), metadata
                    )
                    for left in filled
                ]
                stacked = np.stack(list(filled.values()))
                inputs = model_inputs(stacked, *map(list, zip(*known, strict=True)))
                inputs = {name: x.to(device) for name, x in inputs.items()}
                first, last = strip.first + lefts[0], strip.first + lefts[-1] + window
                where = f"rows from {top}, columns {first} to {last}"
                blender.add(_run_model(model, inputs, channels, where), list(filled))
            seen += len(filled)
            tell(len(lefts))
        valid = has_data(image[..., :rows, inside])
        yield OutputBlock(top, strip.left, blender.pop_rows(rows)[:, :, inside], valid, seen)


def _rows(
    source: RasterSource, plan: TilingPlan, strip: Strip
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """For each row of windows: its top, the rows final after it, the image `(C, ..., window, w)`.

    Rows that two rows of windows share are read once. The image is the same array each time.
    """
    size = plan.window
    image = source.read(Window(0, strip.first, size, strip.width))
    for top, following in pairwise((*plan.tops, plan.shape[0])):
        rows = following - top
        yield top, rows, image
        if following < plan.shape[0]:
            for band in image.reshape(-1, *image.shape[-2:]):
                band[: size - rows] = band[rows:].copy()
            new = Window(top + size, strip.first, rows, strip.width)
            image[..., size - rows :, :] = source.read(new)


def _run_model(model: ModelFn, inputs: dict[str, Tensor], channels: int, where: str) -> Tensor:
    """The model's answers `(B, K, H, W)`, float32."""
    with torch.inference_mode():
        images = inputs["images"]
        answers = model(images, **{name: x for name, x in inputs.items() if name != "images"})
        expected = (len(images), channels, *images.shape[-2:])
        if tuple(answers.shape) != expected:
            raise GeotuneError(
                f"the model gives {tuple(answers.shape)} for images {tuple(images.shape)}, "
                f"expected {expected}, a map for each of {channels} channels; does it fit the task?"
            )
        if not torch.isfinite(answers).all():
            raise GeotuneError(
                f"the model's output is not finite in {where}; predict with 32-bit precision, "
                "and if that does not help train anew with a lower rate"
            )
    return answers.float()
