"""What is written last: the mosaics, the catalogue, and the list of what failed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.transform import Affine

from geotune.api.predict_options import LoadOptions
from geotune.hub.download import adapter_source
from geotune.inference.geotiff import NODATA
from geotune.mapping.catalog import CATALOG, catalog
from geotune.mapping.mosaic import SceneMap, write_mosaics
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import Plan
from geotune.mapping.scene_records import FOLDER, WRITTEN, card_name
from geotune.mapping.store import Store, read_json
from geotune.mapping.tile_states import Failure, lost_parts, read_failures, read_states
from geotune.utils.text import join_some

FAILED_LIST = "failed.csv"
TEMPORARY = (".part", ".partial")
"""Suffixes of files and folders that are not complete."""


@dataclass(frozen=True)
class MapResult:
    """A map, or a share of it.

    Attributes:
        out: the output folder.
        scenes: number of scenes of the plan that can be read.
        tiles: number of tiles of the plan.
        done: number of tiles that are computed.
        failed: what could not be mapped, see `Failure`.
        files: main files in the folder, by name.
        notes: for the user.
        seconds: wall time of this call.
        runs: the map of each run, by its name; empty for a single run. Of several runs, `tiles`,
            `done` and `failed` are those of all maps, and `files` start with the name of the run.
    """

    out: str
    scenes: int
    tiles: int
    done: int
    failed: tuple[Failure, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float = 0.0
    runs: Mapping[str, MapResult] = field(default_factory=dict)

    @classmethod
    def of_runs(cls, out: str, runs: Mapping[str, MapResult], notes: Sequence[str]) -> MapResult:
        """The maps of several runs over the same scenes, by name."""
        results = runs.values()
        return cls(
            out,
            max(each.scenes for each in results),
            sum(each.tiles for each in results),
            sum(each.done for each in results),
            tuple(failure for each in results for failure in each.failed),
            tuple(f"{name}/{file}" for name, each in runs.items() for file in each.files),
            (*notes, *dict.fromkeys(note for each in results for note in each.notes)),
            runs=runs,
        )

    @classmethod
    def of_tiles(
        cls, store: Store, plan: Plan, files: tuple[str, ...] = (), notes: tuple[str, ...] = ()
    ) -> MapResult:
        """The state of the tiles of a folder."""
        states = read_states(store, plan)
        dead = [Failure(each["scene"], "", each["error"], each["code"]) for each in plan.failed]
        failed = (*dead, *read_failures(store, plan, states))
        return cls(
            store.root, len(plan.scenes), len(plan.tiles), len(states.done), failed, files, notes
        )


def read_written(store: Store, plan: Plan, options: MapOptions) -> dict[str, Any]:
    """The record of each scene whose files are written as the options have them, by name."""
    sizes = store.sizes(FOLDER)
    records: dict[str, Any] = {}
    lost = lost_parts(store, plan, read_states(store, plan))
    for name in store.sizes(WRITTEN):
        record = read_json(store, name) if name.endswith(".json") else None
        if record is None or record["plan"] != plan.id or record["options"] != options.of_files:
            continue
        whole = all(sizes.get(file) == facts["bytes"] for file, facts in record["files"].items())
        # a tile that failed may have been computed since
        if whole and set(record["lost"]) == lost[record["scene"]]:
            records[record["scene"]] = record
    return {name: records[name] for name in plan.by_scene if name in records}


def finish(
    store: Store, plan: Plan, options: MapOptions, run: Path | str, files: LoadOptions
) -> MapResult:
    """Write the files of the whole map."""
    from geotune.api.stac_card import card_of  # imports torch

    _remove_temporary(store)
    records = read_written(store, plan, options)
    names: list[str] = []
    notes = [note for record in records.values() for note in record["notes"]]
    if plan.kind in ("classes", "values"):
        maps = [each for record in records.values() if (each := _map(record)) is not None]
        classes = plan.classes if plan.kind == "classes" else ()
        names, left_out = write_mosaics(
            store,
            maps,
            dtype="uint8" if classes else "float32",
            nodata=NODATA if classes else float("nan"),
            classes=classes,
        )
        if left_out:
            notes.append(
                f"{join_some(left_out)}: not in the mosaics, because their reference system has no "
                "coordinates for that place; map scenes of one region into one folder"
            )
    adapters = [adapter_source(each) for each in (run, *files.ensemble)]
    cards = []
    for number, adapter in enumerate(adapters, 1):
        name = card_name(number, len(adapters))
        card = card_of(adapter, store.local or Path("/"))
        store.write(name, json.dumps(card, indent=1, ensure_ascii=False).encode())
        cards.append(f"./{name}")
    items = {f"./{FOLDER}/{name}_item.json": name for name in records}
    store.write(CATALOG, catalog(Path(store.root).name, items, cards))
    result = MapResult.of_tiles(
        store, plan, (*names, CATALOG, "index.html"), tuple(dict.fromkeys(notes))
    )
    store.write(FAILED_LIST, _failed_list(result.failed))
    return result


def _remove_temporary(store: Store) -> None:
    """Remove what killed workers left; all tiles and scenes are done, so nobody writes any."""
    for folder in ("tiles", FOLDER, WRITTEN):
        for name in store.sizes(folder):
            if any(part.startswith(".") and part.endswith(TEMPORARY) for part in name.split("/")):
                store.remove(name)
    if store.local is not None:
        for path in (store.local / FOLDER).glob(".*.partial"):
            shutil.rmtree(path, ignore_errors=True)


def _map(record: Mapping[str, Any]) -> SceneMap | None:
    """The map of a scene; None without georeference."""
    if record["crs"] is None:
        return None
    main = next(name for name in record["files"] if name.endswith(".tif"))
    height, width = record["shape"]
    crs, transform = CRS.from_wkt(record["crs"]), Affine(*record["transform"])
    return SceneMap(record["scene"], main, (height, width), crs, transform)


def _failed_list(failed: tuple[Failure, ...]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["scene", "tile", "code", "error"])
    writer.writerows([each.scene, each.tile, each.code, each.error] for each in failed)
    return text.getvalue().encode()
