"""The maps of scenes as Zarr v3: one group per scene, one array per layer, one shard per tile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray

from geotune.api.predictor import Predictor
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import blocks
from geotune.errors import GeotuneError
from geotune.inference.class_blocks import ClassBlock
from geotune.inference.geotiff import NODATA, PROBABILITY_SCALE, ignore_missing_georeference
from geotune.inference.novelty_map import BANDS
from geotune.inference.regression import ValueBlock
from geotune.mapping.store import Store
from geotune.utils.text import word

ZARR = "maps.zarr"
CHUNK = 512
"""Side of the chunks of a shard, in pixels."""


def check_zarr() -> Any:
    """The package. Raises `GeotuneError` if it is missing, or older than version 3."""
    try:
        zarr = import_module("zarr")
        if int(zarr.__version__.partition(".")[0]) < 3:
            raise ImportError(f"found zarr {zarr.__version__}")
    except ImportError as error:
        raise GeotuneError(
            "--zarr: requires zarr 3: pip install 'geotune[map]'",
            code="dependency-missing",
            key="--zarr",
        ) from error
    return zarr


def write_zarr(
    store: Store,
    scene: str,
    source: RasterSource,
    blocks: Iterable[ClassBlock | ValueBlock],
    tile: int,
    predictor: Predictor,
    novelty: Path | None,
) -> None:
    """Write the map of a scene to `maps.zarr/SCENE`; `blocks` are its tiles.

    `novelty` is the GeoTIFF of the scene's novelty.
    A shard is written at once, so that no chunk is read back.
    """
    zarr = check_zarr()
    root = str(store.local / ZARR) if store.local is not None else f"{store.root}/{ZARR}"
    zarr.open_group(root, mode="a", zarr_format=3)
    group = zarr.open_group(root, path=scene, mode="w", zarr_format=3)
    group.attrs.update(_georeference(source))
    arrays: dict[str, Any] = {}
    for block in blocks:
        for name, values, attributes in _layers(block, predictor):
            if name not in arrays:
                arrays[name] = _new_array(group, name, values, source, tile, attributes)
            height, width = values.shape[-2:]
            rows, columns = (
                slice(block.row, block.row + height),
                slice(block.col, block.col + width),
            )
            arrays[name][..., rows, columns] = values
    if novelty is not None:
        _write_novelty(group, novelty, source, tile)


def _write_novelty(group: Any, path: Path, source: RasterSource, tile: int) -> None:
    """Write the bands of the novelty, each with its scale."""
    with ignore_missing_georeference(), rasterio.open(path) as file:
        for index, (band, scale) in enumerate(zip(BANDS, file.scales, strict=True), 1):
            array = None
            for row, col, height, width in blocks(source.shape, tile):
                window = rasterio.windows.Window(col, row, width, height)
                values = file.read(index, window=window)
                if array is None:
                    name, scaled = f"novelty_{band}", {"scale_factor": scale}
                    array = _new_array(group, name, values, source, tile, scaled)
                array[row : row + height, col : col + width] = values


def _layers(
    block: ClassBlock | ValueBlock, predictor: Predictor
) -> Iterable[tuple[str, NDArray[Any], Mapping[str, Any]]]:
    task: Any = predictor.built.task
    if isinstance(block, ValueBlock):
        yield word(task.classes[0]), block.values[0], {"units": task.unit}
        if len(block.values) > 1:
            yield "standard_deviation", block.values[1], {"units": task.unit}
        return
    scaled = {"scale_factor": 1 / PROBABILITY_SCALE}
    values = list(range(len(task.classes)))
    meanings = {
        "flag_values": values,
        "flag_meanings": " ".join(each.replace(" ", "_") for each in task.classes),
    }
    yield "classes", block.classes, meanings
    yield "scores", block.scores, scaled
    if block.probabilities is not None:
        yield "probabilities", block.probabilities, {**scaled, "classes": list(task.classes)}
    if block.uncertainty is not None:
        yield "uncertainty", block.uncertainty, scaled


def _new_array(
    group: Any,
    name: str,
    values: NDArray[Any],
    source: RasterSource,
    tile: int,
    attributes: Mapping[str, Any],
) -> Any:
    bands = values.shape[:-2]
    chunk = CHUNK if tile % CHUNK == 0 else tile
    return group.create_array(
        name,
        shape=(*bands, *source.shape),
        dtype=values.dtype,
        chunks=(*bands, chunk, chunk),
        shards=(*bands, tile, tile),
        fill_value=np.nan if values.dtype.kind == "f" else NODATA,
        dimension_names=(*("band" for _ in bands), "y", "x"),
        attributes=dict(attributes),
    )


def _georeference(source: RasterSource) -> dict[str, Any]:
    """The grid, in the fields of the STAC projection extension."""
    attributes: dict[str, Any] = {
        "proj:shape": list(source.shape),
        "proj:transform": list(source.transform),
    }
    if source.crs is not None:
        authority = source.crs.to_authority()
        attributes["proj:code"] = ":".join(authority) if authority else None
        attributes["proj:wkt2"] = source.crs.to_wkt()
    return attributes
