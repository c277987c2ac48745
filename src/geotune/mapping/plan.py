"""The plan of a map: `plan.json`, what its tiles depend on, and `plan.parquet`, the tiles.

It is written before the first tile and never changed. Whoever works on a map later, on whatever
machine, compares its own request with that of the plan: the pixels of a tile depend on the request
and the number of the tile alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from geotune.data.raster.windows import Window, blocks
from geotune.errors import GeotuneError
from geotune.inference.tiling import TilingPlan
from geotune.mapping.store import Store
from geotune.utils.parquet import read_parquet_bytes

PLAN, TILES = "plan.json", "plan.parquet"
FORMAT = 3
TABLE = "images"
"""The name under which all images of a table are written."""

IMAGES_PER_TILE = 256
"""Images that are one tile of a table."""


@dataclass(frozen=True)
class Tile:
    """A part of a scene that one worker computes at once; of a table, some images.

    Attributes:
        tile: its name, `SCENE/ROW_COL`.
        scene: name of the scene.
        row: first row of the core, the part that the tile is for; of a table, the first image.
        col: first column of the core.
        height: of the core in pixels; of a table, the number of images.
        width: of the core.
        halo_row: first row of the halo: the windows that touch the core, inside the scene.
        halo_col: first column of the halo.
        halo_height: of the halo.
        halo_width: of the halo.
        windows: number of windows, for progress.
    """

    tile: str
    scene: str
    row: int
    col: int
    height: int
    width: int
    halo_row: int
    halo_col: int
    halo_height: int
    halo_width: int
    windows: int

    @property
    def core(self) -> Window:
        """The part of the scene that the tile is for."""
        return Window(self.row, self.col, self.height, self.width)

    @property
    def stem(self) -> str:
        """The path of its files in the output folder, without suffix."""
        return f"tiles/{self.tile}"


@dataclass(frozen=True)
class Plan:
    """A map that is planned.

    Attributes:
        request: what the pixels depend on, see `requests.make_request`.
        kind: `classes`, `values`, `objects` or `table`.
        scenes: those that are mapped, by name: their size (H, W) in pixels.
        failed: the error of each scene that cannot be opened, with `scene`, `error` and `code`.
        classes: of the model.
        window: side of the windows in pixels.
        tiles: in the order in which they are computed.
    """

    request: Mapping[str, Any]
    kind: str
    scenes: Mapping[str, tuple[int, int]]
    failed: Sequence[Mapping[str, str]]
    classes: Sequence[str]
    window: int
    tiles: Sequence[Tile]

    @cached_property
    def content(self) -> bytes:
        """The bytes of `plan.json`."""
        values = {
            "format": FORMAT,
            "kind": self.kind,
            "classes": list(self.classes),
            "window": self.window,
            "request": self.request,
            "scenes": {name: list(shape) for name, shape in self.scenes.items()},
            "failed": list(self.failed),
        }
        return json.dumps(values, indent=1, ensure_ascii=False).encode()

    @cached_property
    def id(self) -> str:
        """A hash of all that the tiles depend on."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def by_scene(self) -> dict[str, list[Tile]]:
        """The tiles of each scene, in their order."""
        found: dict[str, list[Tile]] = {}
        for tile in self.tiles:
            found.setdefault(tile.scene, []).append(tile)
        return found


def plan_tiles(
    scenes: Mapping[str, tuple[int, int]], kind: str, *, window: int, overlap: float, tile: int
) -> list[Tile]:
    """The tiles of scenes of sizes (H, W), scene by scene, each row by row from the top."""
    if kind == "table":
        groups = range(0, len(scenes), IMAGES_PER_TILE)
        return [
            Tile(f"{TABLE}/{first}", TABLE, first, 0, count, 1, first, 0, count, 1, count)
            for first in groups
            for count in [min(IMAGES_PER_TILE, len(scenes) - first)]
        ]
    return [
        _tile(name, shape, core, kind, window, overlap)
        for name, shape in scenes.items()
        for core in blocks(shape, tile)
    ]


def _tile(
    name: str, shape: tuple[int, int], core: Window, kind: str, window: int, overlap: float
) -> Tile:
    plan = TilingPlan(shape, window, overlap, core.width, core)
    [strip] = plan.strips()
    tops, lefts = plan.tops, strip.lefts
    if kind == "objects":  # those whose first pixel lies in the core, see `detect_windows`
        tops = tuple(top for top in tops if top >= core.row)
        lefts = tuple(left for left in lefts if left >= core.col)
    row, col = min(core.row, *tops, core.row), min(core.col, *lefts, core.col)
    bottom = max(core.row + core.height, *(top + window for top in tops), 0)
    right = max(core.col + core.width, *(left + window for left in lefts), 0)
    halo = Window(row, col, bottom - row, right - col).clip(shape)
    assert halo is not None
    return Tile(f"{name}/{core.row}_{core.col}", name, *core, *halo, len(tops) * len(lefts))


def check_packages() -> None:
    """Raise `GeotuneError` if a package that plans need is missing."""
    try:
        import_module("pyarrow.parquet")
    except ImportError as error:
        raise GeotuneError(
            "map: requires pyarrow: pip install 'geotune[map]'", code="dependency-missing"
        ) from error


def write_plan(store: Store, plan: Plan) -> None:
    """Write a plan, unless another process has just written one."""
    pa: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    table = pa.Table.from_pylist([asdict(tile) for tile in plan.tiles], schema=_schema(pa))
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"plan": plan.id}), buffer)
    store.create(TILES, buffer.getvalue())
    store.create(PLAN, plan.content)  # last: a folder with it has both


def read_plan(store: Store) -> Plan | None:
    """The plan of a folder; None if it has none. Raises `GeotuneError` for a damaged one."""
    try:
        content, table = store.read(PLAN), store.read(TILES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(content)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']}, expected {FORMAT}")
        rows = read_parquet_bytes(table)
        plan = Plan(
            values["request"],
            values["kind"],
            {name: (height, width) for name, (height, width) in values["scenes"].items()},
            values["failed"],
            values["classes"],
            values["window"],
            [Tile(**row) for row in rows.to_pylist()],
        )
        if rows.schema.metadata[b"plan"].decode() != plan.id:
            raise ValueError(f"{TILES} belongs to another {PLAN}")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise GeotuneError(
            f"{store.root}/{PLAN}: damaged, or of another version of geotune ({error}); choose "
            "another --out, or empty the folder",
            code="file-unreadable",
            key="--out",
        ) from error
    return plan


def _schema(pa: Any) -> Any:
    text, number = pa.string(), pa.int64()
    names = [name for name in Tile.__dataclass_fields__ if name not in ("tile", "scene")]
    return pa.schema([("tile", text), ("scene", text), *((name, number) for name in names)])
