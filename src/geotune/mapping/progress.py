"""Progress of a map: on the terminal, and as a page in its folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from geotune.errors import OutputError
from geotune.mapping.plan import Plan, Tile
from geotune.mapping.store import Store
from geotune.mapping.tile_states import read_failures, read_states
from geotune.utils.progress import OnProgress

SECONDS_BETWEEN_PAGES = 15.0
PAGE_SHARE = 0.02
"""Largest share of the time that is spent on pages."""


class MapProgress:
    """Counts tiles and scenes.

    Args:
        store: the output folder.
        plan: of the map.
        on_progress: receives the phases `tiles` and `scenes`.
    """

    def __init__(self, store: Store, plan: Plan, on_progress: OnProgress) -> None:
        self._store, self._plan, self._on_progress = store, plan, on_progress
        self.scenes_written = 0
        self._started = self._next_page = time.monotonic()
        self._tiles = self._windows = self._done = self._done_windows = 0

    def start(self, tiles: Sequence[Tile]) -> None:
        """Tiles will be computed."""
        self._started = time.monotonic()
        self._tiles, self._windows = len(tiles), sum(_cost(tile) for tile in tiles)
        self._done = self._done_windows = 0
        if tiles:
            self._on_progress("tiles", 0, len(tiles))

    def tile_done(self, tile: Tile, *, failed: bool) -> None:
        """A tile is computed, or cannot be."""
        self._done += 1
        self._done_windows += _cost(tile)
        self._on_progress("tiles", self._done, self._tiles, self.seconds_left)

    def scene_written(self) -> None:
        """The files of a scene are written."""
        self.scenes_written += 1
        self._on_progress("scenes", self.scenes_written, len(self._plan.by_scene))

    @property
    def seconds_left(self) -> float | None:
        """Until the tiles are done, from the number of windows; None if it is unknown."""
        if not self._done_windows:
            return None
        seconds = time.monotonic() - self._started
        return seconds * (self._windows - self._done_windows) / self._done_windows

    def tick(self) -> None:
        """Write the page, if it is old."""
        if time.monotonic() >= self._next_page:
            self.write_page(running=True)

    def write_page(self, *, running: bool) -> None:
        """Write the page; a full disk is left to the tiles to report."""
        from geotune.mapping.page import PAGE, render_page

        started = time.monotonic()
        states = read_states(self._store, self._plan)
        faults = [(each["scene"], each["error"]) for each in self._plan.failed]
        faults += [(f.scene, f.error) for f in read_failures(self._store, self._plan, states)]
        page = render_page(
            self._store.root,
            self._plan,
            states,
            written=self.scenes_written,
            faults=faults,
            seconds_left=self.seconds_left,
            running=running,
        )
        with suppress(OutputError):
            self._store.write(PAGE, page)
        now = time.monotonic()
        self._next_page = now + max(SECONDS_BETWEEN_PAGES, (now - started) / PAGE_SHARE)


def _cost(tile: Tile) -> int:
    return max(1, tile.windows)
