"""What whole images are: a table with a row for each, written as they come."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from rasterio.crs import CRS
from rasterio.warp import transform_geom
from torch import Tensor, nn

from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.geotiff import atomic_output, write_errors
from geotune.inference.sliding_window import ModelFn, ProgressFn
from geotune.types import model_inputs

RowsFn = Callable[[Tensor], list[dict[str, str | float]]]
"""From answers `(B, K)` to what a table says of each image."""


@dataclass(frozen=True)
class ImageTable:
    """What a prediction left.

    Attributes:
        name: of the files.
        table_path: CSV: `image`, `path` and what is said of it.
        places_path: GeoJSON of the same with the images' outlines in longitude and latitude; None
            where an image has no place on Earth.
        images: how many there are.
        windows: those that the model saw; the others have no data and no row.
        seconds: wall time.
        rows: what is said of the first `SHOWN` of them.
        notes: what a user should know about the result.
    """

    name: str
    table_path: Path
    places_path: Path | None
    images: int
    windows: int
    seconds: float
    rows: list[dict[str, str | float]]
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """What was written, the table first."""
        return [self.table_path, *([self.places_path] if self.places_path else [])]

    @property
    def summary(self) -> str:
        """What is in it, for people."""
        return f"{self.windows} images"


PREVIEW_ROWS = 5


def write_image_table(
    model: ModelFn,
    sources: Mapping[str, RasterSource],
    out_dir: Path,
    *,
    rows: RowsFn,
    bands: Sequence[str],
    name: str = "images",
    window: int | None = None,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    metadata: Sequence[str] = (),
    progress: ProgressFn | None = None,
) -> ImageTable:
    """Say what each image is: `<name>.csv`, and `<name>.geojson` where all have a place.

    Images are read a batch at a time and rows written as they come. The files are moved into
    place when they are complete; on any failure nothing is left behind.

    Args:
        model: images to answers `(B, K)`; an `nn.Module` is moved to `device` and put in evaluation
            mode.
        sources: the images by name.
        out_dir: made where it is missing.
        rows: what is said of answers.
        bands: what the model gets, in this order.
        name: the files' stem.
        window: side that images are padded to, as in training; by default the largest image's.
        batch_size: images at once.
        device: where the model computes.
        metadata: what of time and location the model is given.
        progress: told after each batch.

    Raises `GeotuneError` for an image that is larger than `window`, bands that one lacks, and
    files that cannot be read or written.
    """
    started = time.perf_counter()
    device = torch.device(device)
    if isinstance(model, nn.Module):
        model.to(device).eval()
    largest = max(sources.values(), key=lambda source: max(source.shape))
    window = window or max(largest.shape)
    if max(largest.shape) > window:
        height, width = largest.shape
        raise GeotuneError(
            f"{largest.path}: is {height}x{width} pixels, larger than the {window} that the model "
            "was trained on; cut it, or give --window"
        )
    placed = all(source.georeferenced for source in sources.values())
    table_path, places_path = out_dir / f"{name}.csv", out_dir / f"{name}.geojson"
    empty: list[str] = []
    first: list[dict[str, str | float]] = []
    done = 0
    with (
        atomic_output(out_dir) as folder,
        write_errors(table_path),
        _CsvWriter(folder / table_path.name) as table,
        _OutlineWriter(folder / places_path.name if placed else None) as outlines,
    ):
        chosen = {key: source.select(bands) for key, source in sources.items()}
        for batch in _batches(chosen, window, batch_size, metadata, device, empty):
            with torch.inference_mode():
                answers = model(batch.images, **batch.known)
            if not torch.isfinite(answers).all():
                raise GeotuneError(
                    f"the model's output is not finite for {', '.join(batch.names[:3])}; "
                    "predict with 32-bit precision, or train anew with a lower rate"
                )
            for key, row in zip(batch.names, rows(answers), strict=True):
                row = {"image": key, "path": str(sources[key].path), **row}
                first += [row] if len(first) < PREVIEW_ROWS else []
                table.write(row)
                outlines.write(row, sources[key])
            done += len(batch.names)
            if progress is not None:
                progress(done + len(empty), len(sources))
    return ImageTable(
        name=name,
        table_path=table_path,
        places_path=places_path if placed else None,
        images=len(sources),
        windows=done,
        seconds=time.perf_counter() - started,
        rows=first,
        notes=tuple(f"{sources[key].path}: no pixel has data, so it has no row" for key in empty),
    )


@dataclass(frozen=True)
class _Batch:
    names: list[str]
    images: Tensor
    known: dict[str, Tensor] = field(default_factory=dict)


def _batches(
    sources: Mapping[str, RasterSource],
    window: int,
    batch_size: int,
    metadata: Sequence[str],
    device: torch.device,
    empty: list[str],
) -> Iterator[_Batch]:
    """The images that have data, padded with NaN; the others' names go to `empty`."""
    place = Window(0, 0, window, window)

    def filled() -> Iterator[tuple[str, Any, Any]]:
        for name, source in sources.items():
            image = source.read(place)
            if has_data(image).any():
                yield name, image, time_and_location(source, Window(0, 0, *source.shape), metadata)
            else:
                empty.append(name)

    rest = filled()
    while batch := list(islice(rest, batch_size)):
        names, images, known = zip(*batch, strict=True)
        inputs = model_inputs(np.stack(images), *map(list, zip(*known, strict=True)))
        moved = {key: x.to(device) for key, x in inputs.items()}
        yield _Batch(list(names), moved.pop("images"), moved)


class _CsvWriter(AbstractContextManager["_CsvWriter"]):
    def __init__(self, path: Path) -> None:
        self.file: IO[str] = path.open("w", encoding="utf-8", newline="")
        self.writer: csv.DictWriter[str] | None = None

    def write(self, row: Mapping[str, str | float]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(row), lineterminator="\n")
            self.writer.writeheader()
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _OutlineWriter(AbstractContextManager["_OutlineWriter"]):
    """Features of a GeoJSON, which is in longitude and latitude (RFC 7946)."""

    def __init__(self, path: Path | None) -> None:
        self.file = None if path is None else path.open("w", encoding="utf-8")
        self.between = '{"type": "FeatureCollection", "features": [\n'

    def write(self, row: Mapping[str, str | float], source: RasterSource) -> None:
        if self.file is None or source.crs is None:
            return
        height, width = source.shape
        corners = ((0, 0), (0, height), (width, height), (width, 0), (0, 0))
        ring = [source.transform @ corner for corner in corners]
        outline = {"type": "Polygon", "coordinates": [ring]}
        there = transform_geom(source.crs, CRS.from_epsg(4326), outline)
        feature = {"type": "Feature", "geometry": there, "properties": dict(row)}
        self.file.write(self.between + json.dumps(feature, ensure_ascii=False))
        self.between = ",\n"

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            start = self.between if self.between.startswith("{") else ""
            self.file.write(start + "\n]}\n")
            self.file.close()
