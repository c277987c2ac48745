"""A map of classes of a whole scene, with probabilities and polygons, in memory that stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import nn

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.inference.geotiff import (
    NODATA,
    PROBABILITY_SCALE,
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    describe_classes,
    describe_probabilities,
    scene_notes,
    write_categories,
)
from geotune.inference.polygon_writer import write_polygons
from geotune.inference.polygonize import polygonize
from geotune.inference.sliding_window import ModelFn, ProgressFn, sliding_window_inference
from geotune.utils.colors import Color, is_background, palette


@dataclass(frozen=True)
class ClassMap:
    """What a prediction left.

    Attributes:
        name: the scene's name.
        classes_path: Cloud-Optimised GeoTIFF of class indices, uint8, 255 where there is no data.
        probabilities_path: Cloud-Optimised GeoTIFF, a band each class, uint8: 254 p, 255 no data.
        polygons_path: GeoPackage.
        windows: windows that the model saw.
        seconds: wall time.
        pixels: pixels of each class.
        nodata_pixels: pixels without data.
        polygons: how many there are, None where they were not asked for.
        notes: what a user should know about the result.
    """

    name: str
    classes_path: Path
    probabilities_path: Path | None
    polygons_path: Path | None
    windows: int
    seconds: float
    pixels: dict[str, int]
    nodata_pixels: int
    polygons: int | None
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """What was written, the map first."""
        others = (self.probabilities_path, self.polygons_path)
        return [self.classes_path, *(path for path in others if path is not None)]

    @property
    def summary(self) -> str:
        """What is in it, for people."""
        total = max(1, sum(self.pixels.values()))
        return ", ".join(f"{name} {count / total:.1%}" for name, count in self.pixels.items())


def segment_scene(
    model: ModelFn,
    source: RasterSource,
    out_dir: Path,
    *,
    bands: Sequence[str],
    classes: Sequence[str],
    name: str,
    colors: Sequence[Color] | None = None,
    window: int = 256,
    overlap: float = 0.5,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    probabilities: bool = False,
    polygons: bool = True,
    metadata: Sequence[str] = (),
    progress: ProgressFn | None = None,
) -> ClassMap:
    """Map a scene into `out_dir`: `<name>_classes.tif`, `<name>_probabilities.tif`, `.gpkg`.

    The files keep the scene's CRS and transform. They are moved into place when all of them are
    complete, replacing those of an earlier prediction; on any failure nothing is left behind.

    Args:
        model: images to probabilities of the classes; an `nn.Module` is moved to `device` and
            put in evaluation mode.
        source: the scene.
        out_dir: made where it is missing.
        bands: what the model gets, in this order.
        classes: name of each class; the first has no polygons where it is called background.
        name: the files' stem.
        colors: of each class; by default `geotune.utils.colors.palette(classes)`.
        window: side in pixels of what the model sees at once.
        overlap: least share of a window that its neighbour covers too, from 0 to below 1.
        batch_size: windows at once.
        device: where the model computes.
        probabilities: whether to write them.
        polygons: whether to write them.
        metadata: what of time and location the model is given.
        progress: told after each batch.

    Raises `GeotuneError` for values out of range, bands that the scene lacks, a model whose
    output has another shape or is not finite, and files that cannot be read or written.
    """
    started = time.perf_counter()
    if not 2 <= len(classes) <= NODATA:
        raise GeotuneError(f"classes: found {len(classes)}, expected 2 to {NODATA} for a map")
    check_file_stem(name)
    colors = palette(classes) if colors is None else colors
    if len(colors) != len(classes):
        raise GeotuneError(f"colors: found {len(colors)} for {len(classes)} classes")
    device = torch.device(device)
    if isinstance(model, nn.Module):
        model.to(device).eval()

    classes_path = out_dir / f"{name}_classes.tif"
    probabilities_path = out_dir / f"{name}_probabilities.tif"
    polygons_path = out_dir / f"{name}_polygons.gpkg"
    counts = np.zeros(NODATA + 1, dtype=np.int64)
    windows, found = 0, None
    with bounded_gdal_cache(), atomic_output(out_dir) as folder, ExitStack() as files:

        def new_map(path: Path, layers: Sequence[str]) -> GeoTiffWriter:
            return files.enter_context(GeoTiffWriter.for_scene(folder / path.name, source, layers))

        maps = new_map(classes_path, ["class"])
        describe_classes(maps, classes, colors)
        shares = new_map(probabilities_path, classes) if probabilities else None
        if shares is not None:
            describe_probabilities(shares)
        for part in sliding_window_inference(
            model,
            source.select(bands),
            channels=len(classes),
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            device=device,
            metadata=metadata,
            progress=progress,
        ):
            values = part.outputs.argmax(dim=0).to(torch.uint8).cpu().numpy()
            values[~part.valid] = NODATA
            counts += np.bincount(values.ravel(), minlength=len(counts))
            windows += part.windows
            maps.write(part.row, part.col, values[None])
            if shares is not None:
                scaled = (part.outputs * PROBABILITY_SCALE).round().to(torch.uint8)
                stored = scaled.cpu().numpy()
                stored[:, ~part.valid] = NODATA
                shares.write(part.row, part.col, stored)
        maps.finish("MODE")
        write_categories(maps.path, classes)
        if shares is not None:
            shares.finish("AVERAGE")
        if polygons:
            found = _vectorise(maps.path, folder / polygons_path.name, classes, source)
    return ClassMap(
        name=name,
        classes_path=classes_path,
        probabilities_path=probabilities_path if probabilities else None,
        polygons_path=polygons_path if polygons else None,
        windows=windows,
        seconds=time.perf_counter() - started,
        pixels={title: int(counts[index]) for index, title in enumerate(classes)},
        nodata_pixels=int(counts[NODATA]),
        polygons=found,
        notes=(
            *scene_notes(source, windows),
            *(
                (f"{polygons_path}: the scene has no CRS, so polygons have no area in m²",)
                if polygons and source.crs is None
                else ()
            ),
            *(
                f"{path}: is from an earlier prediction; delete it or predict {what}"
                for what, path, written in (
                    ("probabilities", probabilities_path, probabilities),
                    ("polygons", polygons_path, polygons),
                )
                if not written and path.exists()
            ),
        ),
    )


def _vectorise(map_path: Path, path: Path, classes: Sequence[str], source: RasterSource) -> int:
    skip = {NODATA} | ({0} if is_background(classes[0]) else set())
    with rasterio.open(map_path) as file:

        def read(top: int, bottom: int) -> NDArray[np.uint8]:
            window = rasterio.windows.Window(0, top, file.width, bottom - top)
            rows: NDArray[np.uint8] = file.read(1, window=window)
            return rows

        return write_polygons(
            path,
            polygonize(read, source.shape, frozenset(skip)),
            classes,
            shape=source.shape,
            crs=source.crs,
            transform=source.transform,
        )
