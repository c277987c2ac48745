"""Sliding-window inference: blended outputs of a model over a scene, block by block.

strip of columns -> rows of the image -> windows -> model -> blend -> final rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.blend import Blender
from geotune.inference.cell_grid import PIXELS, CellGrid
from geotune.inference.tiling import Strip, TilingPlan, strip_width
from geotune.types import model_inputs

ModelFn = Callable[..., Tensor]
"""Maps images `(B, C, H, W)`, float32 raw values with NaN, to outputs `(B, K, H, W)`: probabilities
or values; receives `time=` and `location=` if `metadata` requests them. On a coarser grid the
outputs are `(B, K, h, w)`, one for each cell."""

OnWindows = Callable[[Sequence[Window], Tensor, Tensor], None]
"""Receives windows in pixels of the scene, their images `(B, C, H, W)` and their outputs."""

OnAreas = Callable[[Sequence[Window]], None]
"""Receives windows in pixels of the scene."""

ProgressFn = Callable[[int, int], None]
"""Receives finished and total windows."""


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """How a model is run over the windows of a scene.

    Attributes:
        bands: of the model, in order.
        window: side of a window in pixels.
        overlap: minimum overlap of neighbours, as a fraction of the window in [0, 1).
        batch_size: windows per forward pass; windows without data are skipped.
        device: for the computation.
        metadata: `time` and `location`, if the model takes them.
        on_progress: called after each batch.
        on_areas: receives the windows of each batch before the model runs; those across a border
            of strips twice.

    Raises `GeotuneError` for a batch size below 1.
    """

    bands: Sequence[str]
    window: int = 256
    overlap: float = 0.5
    batch_size: int = 8
    device: torch.device | str = "cpu"
    metadata: Sequence[str] = ()
    on_progress: ProgressFn | None = None
    on_areas: OnAreas | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise GeotuneError(
                f"batch_size: found {self.batch_size}, expected at least 1", code="option-invalid"
            )


@dataclass(frozen=True)
class OutputBlock:
    """A rectangle of final outputs, which no later window touches.

    Rows and columns count the cells of the grid, which are pixels by default.

    Attributes:
        row: first row.
        col: first column.
        outputs: `(K, h, w)`, on the model's device; zero if no window had data.
        valid: `(h, w)`, cells with data in any band of any pixel.
        windows: number of windows computed since the last block.
    """

    row: int
    col: int
    outputs: Tensor
    valid: NDArray[np.bool_]
    windows: int


def sliding_window_inference(
    model: ModelFn,
    source: RasterSource,
    options: WindowOptions,
    *,
    channels: int,
    columns: int | None = None,
    area: Window | None = None,
    grid: CellGrid = PIXELS,
    on_windows: OnWindows | None = None,
) -> Iterator[OutputBlock]:
    """Yield blended outputs for a scene, each cell of the grid once.

    Args:
        model: see `ModelFn`; an `nn.Module` is moved to the device and set to evaluation mode.
        source: the scene.
        options: see `WindowOptions`.
        channels: number of output channels K.
        columns: width of a strip in units of the grid; by default chosen to keep the buffers
            small.
        area: the part of the scene to compute, in units of the grid; its outputs are those of the
            whole scene, up to rounding, which depends on which windows share a batch.
        grid: of the outputs; the window must be a multiple of its unit.
        on_windows: called with each window that has data, once, before its outputs are blended.

    Raises `GeotuneError` for values out of range, and for outputs that are not finite or not of
    shape `(B, channels, H, W)`, in cells of the grid.
    """
    if isinstance(model, nn.Module):
        model.to(options.device).eval()
    source, window = source.select(options.bands), options.window // grid.unit
    # bytes per unit: image rows, those being read, sums, weights and the blend
    image_bytes = 2 * len(source.band_files) * grid.unit**2
    unit_bytes = 4 * (image_bytes + (2 * channels + 1) * grid.cells**2)
    multiple = max(1, 512 // grid.unit)
    columns = columns or strip_width(max(window, 1), unit_bytes, multiple=multiple)
    height, width = (-(-side // grid.unit) for side in source.shape)
    plan = TilingPlan((height, width), window, options.overlap, columns, area)
    done, total = 0, len(plan)

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        if options.on_progress is not None:
            options.on_progress(done, total)

    for strip in plan.strips():
        # a separate generator frees the buffers of a strip before the next one
        yield from _process_strip(
            model, source, options, plan, strip, channels, advance, grid, on_windows
        )


def _process_strip(
    model: ModelFn,
    source: RasterSource,
    options: WindowOptions,
    plan: TilingPlan,
    strip: Strip,
    channels: int,
    advance: Callable[[int], None],
    grid: CellGrid,
    on_windows: OnWindows | None,
) -> Iterator[OutputBlock]:
    unit, cells = grid.unit, grid.cells
    side, device = plan.window * unit, torch.device(options.device)
    offset = strip.left - strip.first
    end_row, end_col = grid.shape(source.shape)
    blender = Blender(channels, strip.width * cells, plan.window * cells, device)
    computed = 0
    for top, rows, image in _read_window_rows(source, plan, strip, unit):
        for start in range(0, len(strip.lefts), options.batch_size):
            lefts = [left - strip.first for left in strip.lefts[start : start + options.batch_size]]
            views = {left: image[..., left * unit : left * unit + side] for left in lefts}
            nonempty = {left: view for left, view in views.items() if not np.isnan(view).all()}
            if nonempty:
                areas = [
                    Window(top * unit, (strip.first + left) * unit, side, side) for left in nonempty
                ]
                times_locations = [
                    time_and_location(source, each, options.metadata) for each in areas
                ]
                stacked = np.stack(list(nonempty.values()))
                inputs = model_inputs(stacked, *map(list, zip(*times_locations, strict=True)))
                inputs = {name: x.to(device) for name, x in inputs.items()}
                first, last = areas[0].col, areas[-1].col + side
                area = f"rows from {top * unit}, columns {first} to {last}"
                if options.on_areas is not None:
                    options.on_areas(areas)
                outputs = _run_model(model, inputs, channels, area, grid)
                # a window across a border is computed for both strips
                own = [i for i, each in enumerate(areas) if each.col >= strip.left * unit]
                if on_windows is not None and own:
                    on_windows([areas[i] for i in own], inputs["images"][own], outputs[own])
                blender.add(outputs, [left * cells for left in nonempty])
            computed += len(nonempty)
            advance(len(lefts))
        above = max(plan.inside.row - top, 0)  # units that the windows above would change
        blended = blender.pop_rows(rows * cells)
        if above >= rows:
            continue
        row, col = (top + above) * cells, strip.left * cells
        height = min((top + rows) * cells, end_row) - row
        width = min(strip.right * cells, end_col) - col
        valid = grid.any_pixel(has_data(image[..., above * unit : rows * unit, offset * unit :]))
        outputs = blended[:, above * cells :, offset * cells :][:, :height, :width]
        yield OutputBlock(row, col, outputs, valid[:height, :width], computed)
        computed = 0


def _read_window_rows(
    source: RasterSource, plan: TilingPlan, strip: Strip, unit: int
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """For each row of windows: first row and number of final rows, both in units, and the image.

    The image is `(C, ..., window, w)` in pixels, the same array each time. Rows shared by two rows
    of windows are read once.
    """
    size, first, width = plan.window, strip.first * unit, strip.width * unit
    image = source.read(Window(plan.tops[0] * unit, first, size * unit, width))
    end = plan.inside.row + plan.inside.height
    for top, following in pairwise((*plan.tops, end)):
        rows = following - top
        yield top, rows, image
        if following < end:
            moved, kept = rows * unit, (size - rows) * unit
            for band in image.reshape(-1, *image.shape[-2:]):
                band[:kept] = band[moved:].copy()
            new = Window((top + size) * unit, first, moved, width)
            image[..., kept:, :] = source.read(new)


def _run_model(
    model: ModelFn, inputs: dict[str, Tensor], channels: int, area: str, grid: CellGrid
) -> Tensor:
    """The outputs `(B, K, H, W)` in float32."""
    with torch.inference_mode():
        images = inputs["images"]
        outputs = model(images, **{name: x for name, x in inputs.items() if name != "images"})
        expected = (len(images), channels, *grid.shape((images.shape[-2], images.shape[-1])))
        if tuple(outputs.shape) != expected:
            raise GeotuneError(
                f"the model's output is {tuple(outputs.shape)} for images {tuple(images.shape)}, "
                f"expected {expected} with {channels} channels; use the model of this task",
                code="output-shape",
            )
        if not torch.isfinite(outputs).all():
            raise GeotuneError(
                f"the model's output is not finite in {area}; use --precision 32-true, or "
                "train again with a lower learning rate",
                code="output-not-finite",
            )
    return outputs.float()
