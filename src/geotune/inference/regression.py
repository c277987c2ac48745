"""Map the values of a regression or density model over a scene, and sum them up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geotune.data.raster.source import RasterSource
from geotune.inference.geotiff import (
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.sliding_window import ModelFn, WindowOptions, sliding_window_inference


@dataclass(frozen=True)
class ValueMap:
    """Result of a prediction.

    Attributes:
        name: the scene's name.
        values_path: Cloud-Optimised GeoTIFF, float32, NaN without data.
        quantity: name of the values.
        unit: of the values.
        summed: whether the sum is reported instead of the mean, as for densities.
        windows: number of windows computed.
        seconds: wall time.
        pixels: number of pixels with data.
        mean: of these pixels; NaN without any.
        total: their sum; for a density the number of objects.
        notes: for the user.
    """

    name: str
    values_path: Path
    quantity: str
    unit: str
    summed: bool
    windows: int
    seconds: float
    pixels: int
    mean: float
    total: float
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """The written files."""
        return [self.values_path]

    @property
    def summary(self) -> str:
        """A short description for display."""
        if self.summed:
            return f"{self.total:,.1f} {self.quantity}"
        return f"mean {self.quantity} {self.mean:.4g} {self.unit}".rstrip()


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
) -> ValueMap:
    """Write the map `<name>_<quantity>.tif` of a scene, with its CRS and transform.

    The file appears only when it is complete.

    Args:
        model: maps images to values `(B, 1, H, W)`, see `sliding_window_inference`.
        source: the scene.
        out_dir: created if needed.
        options: see `WindowOptions`.
        quantity: name of the values.
        name: file stem.
        unit: of the values.
        summed: whether the sum is reported instead of the mean.

    Raises `GeotuneError` for values out of range, missing bands, outputs of another shape or not
    finite, and files that cannot be read or written.
    """
    started = time.perf_counter()
    check_file_stem(name)
    slug = "".join(c if c.isalnum() else "_" for c in quantity)
    path = out_dir / f"{name}_{slug}.tif"
    windows, pixels, total = 0, 0, 0.0
    with (
        bounded_gdal_cache(),
        atomic_output(out_dir) as folder,
        GeoTiffWriter.for_scene(
            folder / path.name, source, [quantity], dtype="float32", nodata=math.nan
        ) as values_file,
    ):
        values_file.dataset.units = (unit,)
        for block in sliding_window_inference(model, source, options, channels=1):
            values = block.outputs.cpu().numpy()
            total += float(values[0][block.valid].sum(dtype=np.float64))
            pixels += int(block.valid.sum())
            windows += block.windows
            values[:, ~block.valid] = np.nan
            values_file.write(block.row, block.col, values)
        values_file.finish("AVERAGE")
    return ValueMap(
        name=name,
        values_path=path,
        quantity=quantity,
        unit=unit,
        summed=summed,
        windows=windows,
        seconds=time.perf_counter() - started,
        pixels=pixels,
        mean=total / pixels if pixels else math.nan,
        total=total,
        notes=tuple(scene_notes(source, windows)),
    )
