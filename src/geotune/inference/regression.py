"""Map the values of a regression or density model over a scene, and sum them up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.geotiff import (
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.novelty_map import NoveltyTracker
from geotune.inference.qgis import MapLayer, value_range, value_style, write_qgis
from geotune.inference.sliding_window import (
    ModelFn,
    OutputBlock,
    WindowOptions,
    sliding_window_inference,
)
from geotune.utils.text import word


@dataclass(frozen=True)
class ValueMap:
    """Result of a prediction.

    Attributes:
        name: the scene's name.
        values_path: Cloud-Optimised GeoTIFF, float32, NaN without data.
        uncertainty_path: Cloud-Optimised GeoTIFF of the standard deviation of several predictions.
        project_path: QGIS project.
        quantity: name of the values.
        unit: of the values.
        summed: whether the sum is reported instead of the mean, as for densities.
        windows: number of windows computed.
        seconds: wall time.
        pixels: number of pixels with data.
        mean: of these pixels; NaN without any.
        total: their sum; for a density the number of objects.
        notes: for the user.
        item_path: STAC item, if one was requested.
        novelty_path: Cloud-Optimised GeoTIFF of the novelty, see `NoveltyTracker`.
    """

    name: str
    values_path: Path
    uncertainty_path: Path | None
    project_path: Path | None
    quantity: str
    unit: str
    summed: bool
    windows: int
    seconds: float
    pixels: int
    mean: float
    total: float
    notes: tuple[str, ...]
    item_path: Path | None = None
    novelty_path: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The written files."""
        others = (
            self.uncertainty_path,
            self.novelty_path,
            self.project_path,
            self.item_path,
        )
        return [self.values_path, *(path for path in others if path is not None)]

    @property
    def summary(self) -> str:
        """A short description for display."""
        if self.summed:
            return f"{self.total:,.1f} {self.quantity}"
        return f"mean {self.quantity} {self.mean:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class ValueBlock:
    """A rectangle of a map of numbers.

    Attributes:
        row: first row.
        col: first column.
        values: `(1, h, w)`, or `(2, h, w)` with the standard deviation; NaN without data.
        windows: number of windows computed since the last block.
    """

    row: int
    col: int
    values: NDArray[np.float32]
    windows: int


def value_blocks(
    model: ModelFn,
    source: RasterSource,
    options: WindowOptions,
    *,
    uncertainty: bool = False,
    area: Window | None = None,
) -> Iterator[ValueBlock]:
    """Predict a scene, or a part of it, block by block; `model` as for `regress_scene`."""
    channels = 2 if uncertainty else 1
    outputs = sliding_window_inference(model, source, options, channels=channels, area=area)
    return map(value_block, outputs)


def value_block(block: OutputBlock) -> ValueBlock:
    """A block of blended outputs as it is stored."""
    values = block.outputs.cpu().numpy()
    values[:, ~block.valid] = np.nan
    return ValueBlock(block.row, block.col, values, block.windows)


def regress_scene(
    model: ModelFn,
    source: RasterSource,
    out_dir: Path,
    options: WindowOptions,
    *,
    quantity: str,
    name: str,
    unit: str = "",
    summed: bool = False,
    uncertainty: bool = False,
    qgis: bool = True,
) -> ValueMap:
    """Predict a scene and write its map, see `write_value_map`.

    Args:
        model: maps images to values `(B, 1, H, W)`, see `sliding_window_inference`; with
            `uncertainty` `(B, 2, H, W)`, mean and standard deviation of several predictions.
        source: the scene.
        out_dir: created if needed.
        options: see `WindowOptions`.
        quantity: name of the values.
        name: file stem.
        unit: of the values.
        summed: whether the sum is reported instead of the mean.
        uncertainty: whether to write the standard deviation as `<name>_uncertainty.tif`.
        qgis: whether to write style and project.

    Raises `GeotuneError` for values out of range, missing bands, outputs of another shape or not
    finite, and files that cannot be read or written.
    """
    return write_value_map(
        value_blocks(model, source, options, uncertainty=uncertainty),
        source,
        out_dir,
        quantity=quantity,
        name=name,
        unit=unit,
        summed=summed,
        uncertainty=uncertainty,
        qgis=qgis,
    )


def write_value_map(
    blocks: Iterable[ValueBlock],
    source: RasterSource,
    out_dir: Path,
    *,
    quantity: str,
    name: str,
    unit: str = "",
    summed: bool = False,
    uncertainty: bool = False,
    qgis: bool = True,
    novelty: NoveltyTracker | None = None,
) -> ValueMap:
    """Write the map `<name>_<quantity>.tif` of a scene, with its CRS and transform.

    With `qgis` also its style and the project `<name>.qgs`. The files appear only when all are
    complete. `blocks` hold each pixel once; the other arguments and errors are those of
    `regress_scene`.
    """
    started = time.perf_counter()
    check_file_stem(name)
    path = out_dir / f"{name}_{word(quantity)}.tif"
    uncertainty_path = out_dir / f"{name}_uncertainty.tif"
    novelty_path = out_dir / f"{name}_novelty.tif"
    windows, pixels, total = 0, 0, 0.0
    with bounded_gdal_cache(), atomic_output(out_dir) as folder, ExitStack() as files:

        def new_map(path: Path, title: str) -> GeoTiffWriter:
            writer = GeoTiffWriter.for_scene(
                folder / path.name, source, [title], dtype="float32", nodata=math.nan
            )
            writer.dataset.units = (unit,)
            return files.enter_context(writer)

        values_file = new_map(path, quantity)
        deviations = new_map(uncertainty_path, "standard deviation") if uncertainty else None
        for block in blocks:
            known = ~np.isnan(block.values[0])
            total += float(block.values[0][known].sum(dtype=np.float64))
            pixels += int(known.sum())
            windows += block.windows
            values_file.write(block.row, block.col, block.values[:1])
            if deviations is not None:
                deviations.write(block.row, block.col, block.values[1:])
        values_file.finish("AVERAGE")
        if deviations is not None:
            deviations.finish("AVERAGE")
        if novelty is not None:
            novelty.write(folder, name, source)
        if qgis:
            style = value_style(*value_range(_overview(values_file.path)))
            title = f"{quantity} ({unit})" if unit else quantity
            layers = [MapLayer(path, title, style)]
            if deviations is not None:
                style = value_style(*value_range(_overview(deviations.path)))
                layers.append(
                    MapLayer(uncertainty_path, "standard deviation", style, visible=False)
                )
            if novelty is not None:
                layers.append(novelty.layer(novelty_path))
            write_qgis(folder, out_dir, name, source, layers)
    return ValueMap(
        name=name,
        values_path=path,
        uncertainty_path=uncertainty_path if uncertainty else None,
        project_path=out_dir / f"{name}.qgs" if qgis else None,
        quantity=quantity,
        unit=unit,
        summed=summed,
        windows=windows,
        seconds=time.perf_counter() - started,
        pixels=pixels,
        mean=total / pixels if pixels else math.nan,
        total=total,
        notes=tuple(scene_notes(source, windows)),
        novelty_path=None if novelty is None else novelty_path,
    )


def _overview(path: Path) -> NDArray[np.float32]:
    """A map, reduced to at most 512 pixels a side."""
    with rasterio.open(path) as file:
        shape = min(file.height, 512), min(file.width, 512)
        values: NDArray[np.float32] = file.read(1, out_shape=shape)
    return values
