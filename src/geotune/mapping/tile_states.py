"""Which tiles are done: a small file beside each tile, written after it, names its hash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geotune.mapping.plan import Plan, Tile
from geotune.mapping.store import Store, read_json, sha256

DONE, FAILED = ".json", ".failed.json"


@dataclass(frozen=True)
class Failure:
    """A scene, an image or a tile that could not be mapped.

    Attributes:
        scene: its name.
        tile: the tile; empty if it is about the whole scene.
        error: the reason.
        code: one of `ERROR_CODES`.
    """

    scene: str
    tile: str
    error: str
    code: str


@dataclass(frozen=True)
class TileStates:
    """The state of the tiles of a plan, by their names.

    Attributes:
        done: tiles whose file has the size that the file beside it names, or that has none.
        failed: tiles that could not be computed.
    """

    done: frozenset[str]
    failed: frozenset[str]


def read_states(store: Store, plan: Plan) -> TileStates:
    """Look which tiles are done. Their content is verified when scenes are written."""
    sizes = store.sizes("tiles")
    written = {name.rpartition(".")[0] for name in sizes if not name.endswith(DONE)}
    done = {t.tile for t in plan.tiles if t.stem + DONE in sizes and t.stem in written}
    failed = {t.tile for t in plan.tiles if t.stem + FAILED in sizes} - done
    return TileStates(frozenset(done), frozenset(failed))


def failed_tiles(store: Store, tiles: Sequence[Tile]) -> frozenset[str]:
    """Which tiles of a scene could not be computed."""
    sizes = store.sizes(f"tiles/{tiles[0].scene}")
    return frozenset(
        tile.tile for tile in tiles if tile.stem + FAILED in sizes and tile.stem + DONE not in sizes
    )


def write_tile(
    store: Store, plan: Plan, tile: Tile, suffix: str, content: bytes, facts: dict[str, Any]
) -> None:
    """Write a tile and then that it is done."""
    digest = sha256(content)
    name = tile.stem + suffix
    if store.local is not None:
        store.write(name, content)
    elif not store.create(name, content) and sha256(store.read(name)) != digest:
        store.write(name, content)  # a damaged one
    values = {
        "plan": plan.id, "tile": tile.tile, "sha256": digest, "bytes": len(content), **facts
    }  # fmt: skip
    store.write(tile.stem + DONE, json.dumps(values).encode())
    store.remove(tile.stem + FAILED)


def read_tile(store: Store, plan: Plan, tile: Tile, suffix: str) -> tuple[bytes, Any] | None:
    """The content of a tile and the facts beside it; None if it is missing or damaged."""
    facts = read_json(store, tile.stem + DONE)
    try:
        content = store.read(tile.stem + suffix)
    except FileNotFoundError:
        return None
    expected = {"plan": plan.id, "tile": tile.tile, "sha256": sha256(content)}
    intact = facts is not None and expected.items() <= facts.items()
    return (content, facts) if intact else None


def write_failure(store: Store, tile: Tile, error: str, code: str) -> None:
    """Write that a tile cannot be computed; the next command tries it again."""
    store.write(tile.stem + FAILED, json.dumps({"error": error, "code": code}).encode())


def read_faults(store: Store, tile: Tile) -> dict[str, str]:
    """The images of a tile of a table that could not be read, with the reason."""
    faults: dict[str, str] = (read_json(store, tile.stem + DONE) or {}).get("faults", {})
    return faults


def read_failures(store: Store, plan: Plan, states: TileStates) -> list[Failure]:
    """What could not be computed: tiles, and images of tables."""
    failures = []
    for tile in plan.tiles:
        if tile.tile in states.failed:
            if values := read_json(store, tile.stem + FAILED):
                failures.append(Failure(tile.scene, tile.tile, values["error"], values["code"]))
        elif plan.kind == "table":
            faults = read_faults(store, tile).items()
            failures += [Failure(name, "", text, "file-unreadable") for name, text in faults]
    return failures


def lost_parts(store: Store, plan: Plan, states: TileStates) -> dict[str, set[str]]:
    """The tiles of each scene, and images of a table, that could not be computed."""
    lost: dict[str, set[str]] = {}
    for tile in plan.tiles:
        own = lost.setdefault(tile.scene, set())
        if tile.tile in states.failed:
            own.add(tile.tile)
        elif plan.kind == "table":
            own.update(read_faults(store, tile))
    return lost


def forget(store: Store, tile: Tile) -> None:
    """Make a tile one that is not done."""
    store.remove(tile.stem + DONE)
