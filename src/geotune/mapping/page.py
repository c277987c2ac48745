"""`index.html` of a map: which tiles are done, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np

import geotune
from geotune.mapping.plan import Plan, Tile
from geotune.mapping.tile_states import TileStates
from geotune.report.images import png
from geotune.report.page import new_environment, page_style
from geotune.utils.colors import Color, css
from geotune.utils.text import duration, pluralize

PAGE = "index.html"
MAX_SCENES, MAX_FAULTS = 400, 50
"""More are only counted, to keep the page small."""

WAITING, DONE, FAILED = 0, 1, 2
COLORS: tuple[Color, ...] = ((205, 211, 219), (31, 111, 196), (214, 84, 28))
NAMES = ("waiting", "done", "failed")


def render_page(
    root: str,
    plan: Plan,
    states: TileStates,
    *,
    written: int,
    faults: Sequence[tuple[str, str]],
    seconds_left: float | None,
    running: bool,
) -> bytes:
    """The page of a map.

    Args:
        root: the output folder.
        plan: of the map.
        states: of its tiles.
        written: number of scenes whose files are written.
        faults: scenes that failed in whole or in part, with the reason.
        seconds_left: until the tiles are done; None if it is unknown.
        running: whether the page will change.
    """
    shown = list(plan.by_scene.items())[:MAX_SCENES]
    page = new_environment("geotune.mapping").get_template("progress.html.j2")
    text = page.render(
        style=page_style(),
        title=PurePosixPath(root).name or root,
        version=geotune.__version__,
        written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        scenes_text=pluralize(len(plan.scenes), "scene"),
        running=running,
        done=f"{len(states.done):,}",
        total=f"{len(plan.tiles):,}",
        failed=len(states.failed),
        scenes_written=written,
        scenes_total=len(plan.by_scene),
        remaining=_remaining(plan, states, seconds_left, running),
        faults=list(faults[:MAX_FAULTS]),
        more_faults=max(0, len(faults) - MAX_FAULTS),
        legend=[(css(color), name) for color, name in zip(COLORS, NAMES, strict=True)],
        pictures=[(name, *_picture(tiles, states)) for name, tiles in shown],
        more_scenes=len(plan.by_scene) - len(shown),
    )
    return text.encode()


def _remaining(plan: Plan, states: TileStates, seconds_left: float | None, running: bool) -> str:
    if len(states.done) + len(states.failed) >= len(plan.tiles):
        return "none"
    if seconds_left is None or not running:
        return "unknown" if running else "stopped"
    return duration(seconds_left)


def _picture(tiles: Sequence[Tile], states: TileStates) -> tuple[str, str]:
    """One pixel per tile, and how many are done."""
    rows = {row: i for i, row in enumerate(sorted({tile.row for tile in tiles}))}
    columns = {col: i for i, col in enumerate(sorted({tile.col for tile in tiles}))}
    grid = np.zeros((len(rows), len(columns)), dtype=np.uint8)
    for tile in tiles:
        state = DONE if tile.tile in states.done else WAITING
        state = FAILED if tile.tile in states.failed else state
        grid[rows[tile.row], columns[tile.col]] = state
    done = int((grid == DONE).sum())
    return png(np.array(COLORS, dtype=np.uint8)[grid]), f"{done}/{len(tiles)}"
