"""Map the features of a model over a scene: a Cloud-Optimised GeoTIFF, a pixel for each cell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.inference.cell_grid import CellGrid
from geotune.inference.feature_projection import INT8_NODATA, Projection, Quantization
from geotune.inference.geotiff import (
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.sliding_window import (
    ModelFn,
    OnWindows,
    WindowOptions,
    sliding_window_inference,
)
from geotune.inference.tiling import TilingPlan
from geotune.types import model_inputs


@dataclass(frozen=True)
class FeatureMap:
    """Result of an embedding.

    Attributes:
        name: the scene's name.
        features_path: Cloud-Optimised GeoTIFF; None if only the table of windows was requested.
        windows: number of windows computed.
        seconds: wall time.
        shape: rows and columns of the map.
        bands: dimensions of the features, or components.
        nodata_cells: number of cells without data.
        notes: for the user.
    """

    name: str
    features_path: Path | None
    windows: int
    seconds: float
    shape: tuple[int, int]
    bands: int
    nodata_cells: int
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """The written files."""
        return [] if self.features_path is None else [self.features_path]

    @property
    def summary(self) -> str:
        """A short description for display."""
        return f"{self.bands} bands of {self.shape[0]}x{self.shape[1]} cells"


def embed_scene(
    model: ModelFn,
    source: RasterSource,
    out_dir: Path,
    options: WindowOptions,
    *,
    grid: CellGrid,
    dimensions: int,
    name: str,
    projection: Projection | None = None,
    quantization: Quantization | None = None,
    tags: Mapping[str, str] | None = None,
    write_map: bool = True,
    on_windows: OnWindows | None = None,
) -> FeatureMap:
    """Write the features of a scene as `<name>_features.tif`, in its CRS.

    Args:
        model: maps images `(B, C, H, W)` to features `(B, D, h, w)`.
        source: the scene.
        out_dir: created if needed.
        options: see `WindowOptions`; the window is a multiple of the grid's unit.
        grid: of the cells.
        dimensions: D.
        name: file stem.
        projection: principal components to write instead of the dimensions.
        quantization: writes 8-bit integers instead of float32.
        tags: of the file.
        write_map: false computes the windows for `on_windows` only.
        on_windows: receives windows, their images, and features or components.

    Raises `GeotuneError` for values out of range, missing bands, features that are not finite, and
    files that cannot be read or written.
    """
    started = time.perf_counter()
    check_file_stem(name)
    bands = [f"dimension_{i}" for i in range(dimensions)]
    if projection is not None:
        bands = [f"component_{i + 1}" for i in range(len(projection.components))]
    path = out_dir / f"{name}_features.tif"

    def project(images: Tensor, **metadata: Tensor) -> Tensor:
        features: Tensor = model(images, **metadata)
        return features if projection is None else projection(features)

    blocks = sliding_window_inference(
        project, source, options, channels=len(bands), grid=grid, on_windows=on_windows
    )
    windows, empty = 0, 0
    if write_map:
        stored = {"dtype": "float32", "nodata": math.nan}
        if quantization is not None:
            stored = {"dtype": "int8", "nodata": INT8_NODATA}
        with bounded_gdal_cache(), atomic_output(out_dir) as folder:
            target = folder / path.name
            with GeoTiffWriter.for_cells(target, source, bands, grid, **stored) as file:
                _describe(file, grid, projection, quantization, tags or {})
                for block in blocks:
                    values = block.outputs.numpy(force=True)
                    values[:, ~block.valid] = np.nan
                    windows += block.windows
                    empty += int((~block.valid).sum())
                    file.write(
                        block.row,
                        block.col,
                        values if quantization is None else quantization.encode(values),
                    )
                file.finish("AVERAGE")
    else:
        for block in blocks:
            windows += block.windows
            empty += int((~block.valid).sum())
    return FeatureMap(
        name=name,
        features_path=path if write_map else None,
        windows=windows,
        seconds=time.perf_counter() - started,
        shape=grid.shape(source.shape),
        bands=len(bands),
        nodata_cells=empty,
        notes=tuple(scene_notes(source, windows)),
    )


def _describe(
    file: GeoTiffWriter,
    grid: CellGrid,
    projection: Projection | None,
    quantization: Quantization | None,
    tags: Mapping[str, str],
) -> None:
    file.dataset.update_tags(**tags, stride=f"{grid.stride:g}")
    if projection is not None:
        file.dataset.update_tags(**projection.tags)
        for band, of_band in enumerate(projection.band_tags, 1):
            file.dataset.update_tags(band, **of_band)
    if quantization is not None:
        file.dataset.scales = tuple(quantization.scale.tolist())
        file.dataset.offsets = tuple(quantization.offset.tolist())


def sampled_features(
    model: ModelFn,
    sources: Mapping[str, RasterSource],
    options: WindowOptions,
    grid: CellGrid,
    max_windows: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Tensor]:
    """Features `(n, D)` of cells with data, of windows that are evenly spread over all scenes.

    Always the same windows, which do not overlap. `on_progress` receives finished and total ones.
    """
    chosen = _spread_windows(sources, options.window, grid, max_windows)
    done, total = 0, sum(map(len, chosen.values()))
    for name, windows in chosen.items():
        source = sources[name].select(options.bands)
        for start in range(0, len(windows), options.batch_size):
            batch = windows[start : start + options.batch_size]
            images = {window: source.read(window) for window in batch}
            filled = {window: image for window, image in images.items() if has_data(image).any()}
            done += len(batch)
            on_progress(done, total)
            if not filled:
                continue
            known = [time_and_location(source, each, options.metadata) for each in filled]
            inputs = model_inputs(
                np.stack(list(filled.values())), *map(list, zip(*known, strict=True))
            )
            with torch.inference_mode():
                features = model(**{key: x.to(options.device) for key, x in inputs.items()})
            valid = np.stack([grid.any_pixel(has_data(image)) for image in filled.values()])
            yield features.movedim(1, -1)[torch.from_numpy(valid).to(features.device)].float()


def count_batches(
    sources: Mapping[str, RasterSource], options: WindowOptions, grid: CellGrid, max_windows: int
) -> int:
    """The largest number of batches of `sampled_features`."""
    chosen = _spread_windows(sources, options.window, grid, max_windows)
    return sum(-(-len(windows) // options.batch_size) for windows in chosen.values())


def _spread_windows(
    sources: Mapping[str, RasterSource], window: int, grid: CellGrid, max_windows: int
) -> dict[str, list[Window]]:
    every: list[tuple[str, Window]] = []
    for name, source in sources.items():
        shape = [-(-side // grid.unit) for side in source.shape]
        plan = TilingPlan((shape[0], shape[1]), window // grid.unit, 0, strip_width=shape[1])
        lefts: Sequence[int] = next(plan.strips()).lefts
        every += [
            (name, Window(top * grid.unit, left * grid.unit, window, window))
            for top in plan.tops
            for left in lefts
        ]
    step = max(1, math.ceil(len(every) / max_windows))
    chosen: dict[str, list[Window]] = {}
    for name, each in every[::step]:
        chosen.setdefault(name, []).append(each)
    return chosen
