"""Predict whole images, and write one table row for each."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.outline import outline
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.geotiff import atomic_output, write_errors
from geotune.inference.sliding_window import ModelFn, ProgressFn
from geotune.types import model_inputs

Row = dict[str, str | float]
"""Columns of a table by name."""

RowsFn = Callable[[Tensor], list[Row]]
"""Maps outputs `(B, K)` to the table columns of each image."""


@dataclass(frozen=True)
class ImageTable:
    """Result of a prediction.

    Attributes:
        name: of the files.
        table_path: CSV with `image`, `path` and the columns of the task.
        places_path: GeoJSON with the same columns and the outlines of the images in longitude and
            latitude; None if an image is not georeferenced.
        images: number of images.
        windows: number of images with data; the others have no row.
        seconds: wall time.
        rows: the first `PREVIEW_ROWS` rows.
        notes: for the user.
        item_path: STAC item, if one was requested.
    """

    name: str
    table_path: Path
    places_path: Path | None
    images: int
    windows: int
    seconds: float
    rows: list[Row]
    notes: tuple[str, ...]
    item_path: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The written files, the table first."""
        others = (self.places_path, self.item_path)
        return [self.table_path, *(path for path in others if path is not None)]

    @property
    def summary(self) -> str:
        """A short description for display."""
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
    on_progress: ProgressFn | None = None,
) -> ImageTable:
    """Predict images and write their table, see `write_image_rows`.

    Images are read and rows written batch by batch.

    Args:
        model: maps images to outputs `(B, K)`; an `nn.Module` is moved to `device` and set to
            evaluation mode.
        sources: images by name.
        out_dir: created if needed.
        rows: converts outputs to table columns.
        bands: of the model, in order.
        name: file stem.
        window: side to which images are padded, as in training; by default that of the largest.
        batch_size: images per forward pass.
        device: for the computation.
        metadata: `time` and `location`, if the model takes them.
        on_progress: called after each batch.

    Raises `GeotuneError` for an image larger than `window`, missing bands, outputs that are not
    finite, and files that cannot be read or written.
    """
    predicted = image_rows(
        model,
        sources,
        rows=rows,
        bands=bands,
        window=checked_window(sources, window),
        batch_size=batch_size,
        device=device,
        metadata=metadata,
        on_progress=on_progress,
    )
    return write_image_rows(predicted, sources, out_dir, name=name)


def checked_window(sources: Mapping[str, RasterSource], window: int | None) -> int:
    """The window, or the side of the largest image. Raises `GeotuneError` for a larger image."""
    largest = max(sources.values(), key=lambda source: max(source.shape))
    window = window or max(largest.shape)
    if max(largest.shape) > window:
        height, width = largest.shape
        raise GeotuneError(
            f"{largest.path}: {height}x{width} pixels exceed the window of {window} on which the "
            "model was trained; crop the image, or set --window",
            code="image-too-large",
            file=largest.path,
        )
    return window


def image_rows(
    model: ModelFn,
    sources: Mapping[str, RasterSource],
    *,
    rows: RowsFn,
    bands: Sequence[str],
    window: int,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    metadata: Sequence[str] = (),
    on_progress: ProgressFn | None = None,
) -> Iterator[tuple[str, Row]]:
    """Predict images: the name and the row of each that has data, in their order.

    The arguments and errors are those of `write_image_table`.
    """
    device = torch.device(device)
    if isinstance(model, nn.Module):
        model.to(device).eval()
    empty: list[str] = []
    done = 0
    selected = {key: source.select(bands) for key, source in sources.items()}
    for batch in _batches(selected, window, batch_size, metadata, device, empty):
        with torch.inference_mode():
            outputs = model(batch.images, **batch.metadata)
        if not torch.isfinite(outputs).all():
            raise GeotuneError(
                f"the model's output is not finite for {', '.join(batch.names[:3])}; "
                "use --precision 32-true, or train again with a lower learning rate",
                code="output-not-finite",
            )
        for key, row in zip(batch.names, rows(outputs), strict=True):
            yield key, {"image": key, "path": str(sources[key].path), **row}
        done += len(batch.names)
        if on_progress is not None:
            on_progress(done + len(empty), len(sources))


def write_image_rows(
    rows: Iterable[tuple[str, Row]],
    sources: Mapping[str, RasterSource],
    out_dir: Path,
    *,
    name: str = "images",
) -> ImageTable:
    """Write `<name>.csv`, and `<name>.geojson` if all images are georeferenced.

    The files appear only when they are complete. Images without a row are noted as those without
    data.
    """
    started = time.perf_counter()
    georeferenced = all(source.georeferenced for source in sources.values())
    table_path, places_path = out_dir / f"{name}.csv", out_dir / f"{name}.geojson"
    preview: list[Row] = []
    written: set[str] = set()
    with (
        atomic_output(out_dir) as folder,
        write_errors(table_path),
        _CsvWriter(folder / table_path.name) as table,
        _OutlineWriter(folder / places_path.name if georeferenced else None) as outlines,
    ):
        for key, row in rows:
            preview += [row] if len(preview) < PREVIEW_ROWS else []
            table.write(row)
            outlines.write(row, sources[key])
            written.add(key)
    return ImageTable(
        name=name,
        table_path=table_path,
        places_path=places_path if georeferenced else None,
        images=len(sources),
        windows=len(written),
        seconds=time.perf_counter() - started,
        rows=preview,
        notes=tuple(
            f"{source.path}: no pixel has data, so the table has no row for it"
            for key, source in sources.items()
            if key not in written
        ),
    )


@dataclass(frozen=True)
class _Batch:
    names: list[str]
    images: Tensor
    metadata: dict[str, Tensor] = field(default_factory=dict)


def _batches(
    sources: Mapping[str, RasterSource],
    window: int,
    batch_size: int,
    metadata: Sequence[str],
    device: torch.device,
    empty: list[str],
) -> Iterator[_Batch]:
    """The images with data, padded with NaN; names of the others are appended to `empty`."""
    area = Window(0, 0, window, window)

    def filled() -> Iterator[tuple[str, Any, Any]]:
        for name, source in sources.items():
            image = source.read(area)
            if has_data(image).any():
                yield name, image, time_and_location(source, Window(0, 0, *source.shape), metadata)
            else:
                empty.append(name)

    remaining = filled()
    while batch := list(islice(remaining, batch_size)):
        names, images, times_locations = zip(*batch, strict=True)
        inputs = model_inputs(np.stack(images), *map(list, zip(*times_locations, strict=True)))
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
    """Writes outlines to a GeoJSON in longitude and latitude (RFC 7946)."""

    def __init__(self, path: Path | None) -> None:
        self.file = None if path is None else path.open("w", encoding="utf-8")
        self.separator = '{"type": "FeatureCollection", "features": [\n'

    def write(self, row: Mapping[str, str | float], source: RasterSource) -> None:
        if self.file is None or source.crs is None:
            return
        try:
            geometry = outline(source)
        except GeotuneError:  # a local CRS
            geometry = None
        feature = {"type": "Feature", "geometry": geometry, "properties": dict(row)}
        self.file.write(self.separator + json.dumps(feature, ensure_ascii=False))
        self.separator = ",\n"

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            start = self.separator if self.separator.startswith("{") else ""
            self.file.write(start + "\n]}\n")
            self.file.close()
