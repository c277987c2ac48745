"""A map of numbers of a whole scene, and what they add up to."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from geotune.data.raster.source import RasterSource
from geotune.inference.geotiff import (
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.sliding_window import ModelFn, ProgressFn, sliding_window_inference


@dataclass(frozen=True)
class ValueMap:
    """What a prediction left.

    Attributes:
        name: the scene's name.
        values_path: Cloud-Optimised GeoTIFF of float32, NaN where there is no data.
        quantity: what the numbers are.
        unit: in what they are measured.
        summed: whether their sum is what people ask for, as of a density.
        windows: windows that the model saw.
        seconds: wall time.
        pixels: pixels with data.
        mean: of them; NaN where there are none.
        total: their sum; of a density the number of objects.
        notes: what a user should know about the result.
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
        """What was written."""
        return [self.values_path]

    @property
    def summary(self) -> str:
        """What is in it, for people."""
        if self.summed:
            return f"{self.total:,.1f} {self.quantity}"
        return f"mean {self.quantity} {self.mean:.4g} {self.unit}".rstrip()


def regress_scene(
    model: ModelFn,
    source: RasterSource,
    out_dir: Path,
    *,
    bands: Sequence[str],
    quantity: str,
    name: str,
    unit: str = "",
    summed: bool = False,
    window: int = 256,
    overlap: float = 0.5,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    metadata: Sequence[str] = (),
    progress: ProgressFn | None = None,
) -> ValueMap:
    """Map a scene into `out_dir`: `<name>_<quantity>.tif`, with the scene's CRS and transform.

    The file is moved into place when it is complete; on any failure nothing is left behind.

    Args:
        model: images to numbers `(B, 1, H, W)`; an `nn.Module` is moved to `device` and put in
            evaluation mode.
        source: the scene.
        out_dir: made where it is missing.
        bands: what the model gets, in this order.
        quantity: what the numbers are.
        name: the file's stem.
        unit: in what they are measured.
        summed: whether their sum is what people ask for.
        window: side in pixels of what the model sees at once.
        overlap: least share of a window that its neighbour covers too, from 0 to below 1.
        batch_size: windows at once.
        device: where the model computes.
        metadata: what of time and location the model is given.
        progress: told after each batch.

    Raises `GeotuneError` for values out of range, bands that the scene lacks, a model whose
    output has another shape or is not finite, and files that cannot be read or written.
    """
    started = time.perf_counter()
    check_file_stem(name)
    device = torch.device(device)
    if isinstance(model, nn.Module):
        model.to(device).eval()
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
        for part in sliding_window_inference(
            model,
            source.select(bands),
            channels=1,
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            device=device,
            metadata=metadata,
            progress=progress,
        ):
            values = part.outputs.cpu().numpy()
            total += float(values[0][part.valid].sum(dtype=np.float64))
            pixels += int(part.valid.sum())
            windows += part.windows
            values[:, ~part.valid] = np.nan
            values_file.write(part.row, part.col, values)
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
