"""The content of tile files: a GeoTIFF of a map, a Parquet table of objects, JSON rows of a table.

Equal predictions give equal bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from geotune.boxes.structures import Detections
from geotune.data.raster.source import RasterSource
from geotune.inference.class_blocks import ClassBlock
from geotune.inference.detection import DetectedWindow
from geotune.inference.geotiff import NODATA, ignore_missing_georeference
from geotune.inference.novelty_map import Distances, NoveltyTracker
from geotune.inference.regression import ValueBlock
from geotune.mapping.plan import Tile
from geotune.utils.parquet import read_parquet_bytes

NOVELTY = "novelty"
"""The tag of a GeoTIFF, and the key of a Parquet file, with the distances of windows as JSON."""


@dataclass(frozen=True)
class TileFormat:
    """How the tiles of one kind of prediction are stored.

    Attributes:
        suffix: of the files.
        pack: `pack(predicted, tile, source, novelty)` returns the bytes of a tile and the number of
            windows with data; with a tracker in `novelty` also the distances of its windows.
        unpack: `unpack(content, tile, windows)` yields what was packed.
        empty: `empty(tile)` yields the same for a tile that cannot be computed.
        distances: `distances(content)` returns those of the tile's windows, if it has them.
    """

    suffix: str
    pack: Callable[..., tuple[bytes, int]]
    unpack: Callable[..., Iterator[Any]]
    empty: Callable[[Tile], Iterator[Any]]
    distances: Callable[[bytes], Distances]


def class_format(classes: int, *, probabilities: bool, measures: int) -> TileFormat:
    """Of class maps: bands of classes and scores, then probabilities and measures of uncertainty.

    `classes` and `measures` are numbers of bands; without uncertainty there are 0 measures.
    """
    ends = np.cumsum([1, 1, classes if probabilities else 0, measures])

    def pack(
        predicted: Iterable[ClassBlock],
        tile: Tile,
        source: RasterSource,
        novelty: NoveltyTracker | None,
    ) -> tuple[bytes, int]:
        values = np.full((int(ends[-1]), tile.height, tile.width), NODATA, np.uint8)
        windows = 0
        for block in predicted:
            layers = [block.classes[None], block.scores[None]]
            layers += [x for x in (block.probabilities, block.uncertainty) if x is not None]
            _fill(values, tile, block.row, block.col, np.concatenate(layers))
            windows += block.windows
        return _geotiff(values, tile, source, NODATA, novelty), windows

    def blocks(values: NDArray[Any], tile: Tile, windows: int) -> Iterator[ClassBlock]:
        own, scores, shares, levels = np.split(values, ends[:-1])
        yield ClassBlock(
            tile.row, tile.col, own[0], scores[0],
            shares if probabilities else None, levels if measures else None, windows,
        )  # fmt: skip

    def empty(tile: Tile) -> Iterator[ClassBlock]:
        return blocks(np.full((int(ends[-1]), tile.height, tile.width), NODATA, np.uint8), tile, 0)

    def unpack(content: bytes, tile: Tile, windows: int) -> Iterator[ClassBlock]:
        return blocks(_pixels(content), tile, windows)

    return TileFormat(".tif", pack, unpack, empty, _tagged_distances)


def value_format(bands: int) -> TileFormat:
    """Of maps of numbers: the value, and with two bands its standard deviation."""

    def pack(
        predicted: Iterable[ValueBlock],
        tile: Tile,
        source: RasterSource,
        novelty: NoveltyTracker | None,
    ) -> tuple[bytes, int]:
        values = np.full((bands, tile.height, tile.width), np.nan, np.float32)
        windows = 0
        for block in predicted:
            _fill(values, tile, block.row, block.col, block.values)
            windows += block.windows
        return _geotiff(values, tile, source, float("nan"), novelty), windows

    def unpack(content: bytes, tile: Tile, windows: int) -> Iterator[ValueBlock]:
        yield ValueBlock(tile.row, tile.col, _pixels(content), windows)

    def empty(tile: Tile) -> Iterator[ValueBlock]:
        missing = np.full((bands, tile.height, tile.width), np.nan, np.float32)
        yield ValueBlock(tile.row, tile.col, missing, 0)

    return TileFormat(".tif", pack, unpack, empty, _tagged_distances)


def object_format() -> TileFormat:
    """Of objects: all detections of the windows that start in the tile, in pixels of the window.

    They are merged when the scene is written, so that an object at the border of tiles is there
    once, as in a scene that is predicted at once.
    """

    def pack(
        predicted: Iterable[DetectedWindow],
        tile: Tile,
        source: RasterSource,
        novelty: NoveltyTracker | None,
    ) -> tuple[bytes, int]:
        pa: Any = import_module("pyarrow")
        windows = list(predicted)
        found = [window.detections for window in windows]
        boxes = [each.boxes.cpu().numpy() for each in found]
        counts = [len(each) for each in boxes]
        side = boxes[0].shape[1] if boxes else 4
        columns: dict[str, NDArray[Any]] = {
            "top": np.repeat(np.array([w.top for w in windows], np.int64), counts),
            "left": np.repeat(np.array([w.left for w in windows], np.int64), counts),
            "class": np.concatenate([np.zeros(0, np.int64)] + [d.classes.cpu() for d in found]),
            "score": np.concatenate([np.zeros(0, np.float32)] + [d.scores.cpu() for d in found]),
        }
        stacked = np.concatenate([np.zeros((0, side), np.float32), *boxes])
        columns |= {f"box_{i}": np.ascontiguousarray(stacked[:, i]) for i in range(side)}
        starts = [(window.top, window.left) for window in windows]
        metadata = {"windows": json.dumps(starts)}
        if novelty is not None:  # beside other runs, more windows were seen
            own = set(starts)
            metadata[NOVELTY] = json.dumps([each for each in novelty.distances if each[:2] in own])
        table = pa.table(columns).replace_schema_metadata(metadata)
        buffer = io.BytesIO()
        import_module("pyarrow.parquet").write_table(table, buffer)
        return buffer.getvalue(), len(windows)

    def unpack(content: bytes, tile: Tile, windows: int) -> Iterator[DetectedWindow]:
        table = read_parquet_bytes(content)
        tops, lefts, classes, scores, *sides = (
            torch.from_numpy(column.to_numpy().copy()) for column in table.columns
        )
        boxes = torch.stack(sides, dim=1)
        for top, left in json.loads(table.schema.metadata[b"windows"]):
            own = (tops == top) & (lefts == left)
            yield DetectedWindow(top, left, Detections(boxes[own], scores[own], classes[own]))

    def distances(content: bytes) -> Distances:
        schema = import_module("pyarrow.parquet").read_schema(io.BytesIO(content))
        return _distances(schema.metadata.get(NOVELTY.encode()))

    return TileFormat(".parquet", pack, unpack, lambda tile: iter(()), distances)


def row_format() -> TileFormat:
    """Of a table: the name and the row of each image with data, which has its novelty."""

    def pack(
        predicted: Iterable[Any], tile: Tile, source: object, novelty: object
    ) -> tuple[bytes, int]:
        rows = list(predicted)
        return json.dumps(rows, ensure_ascii=False).encode(), len(rows)

    def unpack(content: bytes, tile: Tile, windows: int) -> Iterator[tuple[str, Any]]:
        yield from json.loads(content)

    return TileFormat(".rows", pack, unpack, lambda tile: iter(()), lambda content: ())


def in_order(windows: Sequence[DetectedWindow]) -> list[DetectedWindow]:
    """Windows of a row of tiles, row by row."""
    return sorted(windows, key=lambda window: (window.top, window.left))


def _fill(values: NDArray[Any], tile: Tile, row: int, col: int, part: NDArray[Any]) -> None:
    top, left = row - tile.row, col - tile.col
    values[:, top : top + part.shape[1], left : left + part.shape[2]] = part


def _geotiff(
    values: NDArray[Any],
    tile: Tile,
    source: RasterSource,
    nodata: float,
    novelty: NoveltyTracker | None,
) -> bytes:
    transform = source.transform * Affine.translation(tile.col, tile.row)
    georeference: dict[str, Any] = {"crs": source.crs, "transform": transform}
    if not source.georeferenced:
        georeference = {}
    with ignore_missing_georeference(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=values.shape[0],
            height=tile.height,
            width=tile.width,
            dtype=values.dtype,
            nodata=nodata,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="DEFLATE",
            zlevel=4,
            interleave="band",
            BIGTIFF="IF_SAFER",
            **georeference,
        ) as file:
            if novelty is not None:
                file.update_tags(**{NOVELTY: json.dumps(novelty.distances)})
            file.write(values)
        content: bytes = memory.read()
        return content


def _pixels(content: bytes) -> NDArray[Any]:
    with ignore_missing_georeference(), MemoryFile(content) as memory, memory.open() as file:
        values: NDArray[Any] = file.read()
        return values


def _tagged_distances(content: bytes) -> Distances:
    with ignore_missing_georeference(), MemoryFile(content) as memory, memory.open() as file:
        return _distances(file.tags().get(NOVELTY))


def _distances(text: str | bytes | None) -> Distances:
    return [] if text is None else [tuple(each) for each in json.loads(text)]
