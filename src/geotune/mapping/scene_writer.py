"""Make the files of a scene out of its tiles, as `geotune predict` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from geotune.api.stac_card import card_of
from geotune.data.raster.source import RasterSource
from geotune.hub.manifest import file_hash
from geotune.inference.further_formats import FurtherFormats
from geotune.inference.image_table import write_image_rows
from geotune.mapping.catalog import scene_item
from geotune.mapping.plan import TABLE, Tile
from geotune.mapping.scene_records import FOLDER, WRITTEN, card_name
from geotune.mapping.tile_files import in_order
from geotune.mapping.tile_states import failed_tiles, forget, read_faults, read_tile
from geotune.mapping.tile_worker import TileWorker
from geotune.utils.atomic import sync_to_disk


class DamagedTileError(Exception):
    """A tile is missing, or is not what was written."""


class SceneWriter:
    """Writes scenes.

    Args:
        worker: with the plan and the model.
    """

    def __init__(self, worker: TileWorker) -> None:
        self._worker, self._store, self._plan = worker, worker.store, worker.plan
        self._options, self._predictor = worker.options, worker.predictor
        self._failed: frozenset[str] = frozenset()
        self._titles = {
            card_name(number, len(worker.predictor.adapters)): str(
                adapter.reference or card_of(adapter, Path())["properties"]["title"]
            )
            for number, adapter in enumerate(worker.predictor.adapters, 1)
        }

    def write(self, scene: str) -> dict[str, Any]:
        """Write the files of a scene, its STAC item, and then that it is written.

        Returns its name, `summary`, `notes` and `files` by name with their hashes; or the names of
        `damaged` tiles, which have to be computed again.
        """
        tiles = self._plan.by_scene[scene]
        try:
            result = self._write(scene, tiles)
        except DamagedTileError:
            whole = [tile for tile in tiles if tile.tile not in self._failed]
            damaged = [tile for tile in whole if self._is_damaged(tile)]
            for tile in damaged:
                forget(self._store, tile)
            return {"scene": scene, "damaged": [tile.tile for tile in damaged]}
        self._store.write(
            f"{WRITTEN}/{scene}.json", json.dumps(result, ensure_ascii=False).encode()
        )
        return result

    def _write(self, scene: str, tiles: list[Tile]) -> dict[str, Any]:
        predictor, notes = self._predictor, []
        self._failed = failed_tiles(self._store, tiles)
        lost = [tile for tile in tiles if tile.tile in self._failed]
        if lost:
            notes.append(
                f"{scene}: {len(lost)} of {len(tiles)} tiles could not be computed and have no "
                "data; failed.csv has the reasons"
            )
        sources = self._worker.sources_of(scene)
        faults = self._faults(tiles)
        sources = {name: source for name, source in sources.items() if name not in faults}
        with self._store.staging(FOLDER) as folder:
            if predictor.kind == "table":
                result: Any = write_image_rows(self._unpacked(tiles), sources, folder, name=TABLE)
            else:
                result = self._write_scene(scene, tiles, sources[scene], folder)
            files = {}
            for path in result.files:
                sync_to_disk(path)
                files[f"{FOLDER}/{path.name}"] = {
                    "sha256": file_hash(path),
                    "bytes": path.stat().st_size,
                }
            hashes = {name.rpartition("/")[2]: each["sha256"] for name, each in files.items()}
            item = scene_item(
                scene,
                result.files,
                sources,
                folder,
                classes=predictor.built.task.classes,
                models={f"../{name}": title for name, title in self._titles.items()},
                hashes=hashes,
                remote=self._store.local is None,
            )
            self._store.write(f"{FOLDER}/{scene}_item.json", item)
        if not lost:  # they read the image, too
            notes += predictor.scene_notes(sources)
        notes += result.notes
        return {
            "plan": self._plan.id,
            "options": self._options.of_files,
            "scene": scene,
            "summary": result.summary,
            "notes": notes,
            "lost": sorted({*self._failed, *faults}),
            "files": files,
            **_grid(sources, predictor.kind),
        }

    def _write_scene(
        self, scene: str, tiles: list[Tile], source: RasterSource, folder: Path
    ) -> Any:
        predictor = self._predictor
        windows = predictor.windows()
        if predictor.novelty is not None:
            predictor.novelty.start([each.core for each in tiles if each.tile in self._failed])
        result: Any = predictor.steps.write(
            self._unpacked(tiles),
            source,
            folder,
            windows,
            name=scene,
            novelty=predictor.novelty,
            # styles read the image, of which parts may be unreadable
            qgis=self._options.qgis and self._store.local is not None and not self._failed,
        )
        formats = predictor.options.formats
        if formats:
            classes = predictor.built.task.classes
            with FurtherFormats(
                formats, folder, predictor.layer, classes, predictor.shape
            ) as further:
                package = folder / f"{scene}_{predictor.layer}.gpkg"
                result = replace(result, further_paths=further.add(package, source, scene))
        if self._options.zarr and predictor.kind in ("classes", "values"):
            from geotune.mapping.zarr_maps import write_zarr

            write_zarr(
                self._store,
                scene,
                source,
                self._unpacked(tiles),
                self._options.tile,
                predictor,
                result.novelty_path and folder / result.novelty_path.name,
            )
        return result

    def _unpacked(self, tiles: list[Tile]) -> Iterator[Any]:
        """What the tiles hold, from top to bottom. Raises `DamagedTileError`."""
        if self._predictor.kind != "objects":
            for tile in tiles:
                yield from self._content(tile)
            return
        for _, row in groupby(tiles, lambda tile: tile.row):
            yield from in_order([window for tile in row for window in self._content(tile)])

    def _content(self, tile: Tile) -> Iterator[Any]:
        form = self._worker.format
        if tile.tile in self._failed:
            return form.empty(tile)
        found = read_tile(self._store, self._plan, tile, form.suffix)
        if found is None:
            raise DamagedTileError(tile.tile)
        content, facts = found
        if self._predictor.novelty is not None:
            self._predictor.novelty.restore(form.distances(content), self._predictor.window)
        return form.unpack(content, tile, facts["windows"])

    def _faults(self, tiles: list[Tile]) -> dict[str, str]:
        """The images of a table that could not be read."""
        if self._predictor.kind != "table":
            return {}
        return {
            name: error for tile in tiles for name, error in read_faults(self._store, tile).items()
        }

    def _is_damaged(self, tile: Tile) -> bool:
        return read_tile(self._store, self._plan, tile, self._worker.format.suffix) is None


def _grid(sources: Mapping[str, RasterSource], kind: str) -> dict[str, Any]:
    """The grid of a map; a `crs` of None without georeference."""
    if kind not in ("classes", "values"):
        return {"crs": None}
    [source] = sources.values()
    if not source.georeferenced or source.crs is None:
        return {"crs": None}
    return {
        "crs": source.crs.to_wkt(),
        "transform": list(source.transform)[:6],
        "shape": list(source.shape),
    }
