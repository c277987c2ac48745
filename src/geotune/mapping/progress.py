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
        folders: the output folder and the plan of each run.
        on_progress: receives the phases `tiles` and `scenes`.

    Attributes:
        scenes_written: number of scenes of each run whose files are written.
    """

    def __init__(self, folders: Sequence[tuple[Store, Plan]], on_progress: OnProgress) -> None:
        self._folders, self._on_progress = folders, on_progress
        self.scenes_written = [0] * len(folders)
        self._started = self._next_page = time.monotonic()
        self._tiles = self._windows = self._done = self._done_windows = 0

    def start(self, tiles: Sequence[Tile], earlier: int = 0) -> None:
        """Tiles will be computed, beside a number of `earlier` ones, which are done."""
        self._started = time.monotonic()
        self._tiles, self._windows = earlier + len(tiles), sum(_cost(tile) for tile in tiles)
        self._done, self._done_windows = earlier, 0
        if tiles:
            self._on_progress("tiles", earlier, self._tiles)

    def tile_done(self, tile: Tile) -> None:
        """A tile is computed, or cannot be."""
        self._done += 1
        self._done_windows += _cost(tile)
        self._on_progress("tiles", self._done, self._tiles, self.seconds_left)

    def scene_written(self, run: int) -> None:
        """The files of a scene are written for the run of an index."""
        self.scenes_written[run] += 1
        total = sum(len(plan.by_scene) for _, plan in self._folders)
        self._on_progress("scenes", sum(self.scenes_written), total)

    @property
    def seconds_left(self) -> float | None:
        """Until the tiles are done, from the number of windows; None if it is unknown."""
        if not self._done_windows:
            return None
        seconds = time.monotonic() - self._started
        return seconds * (self._windows - self._done_windows) / self._done_windows

    def tick(self) -> None:
        """Write the pages, if they are old."""
        if time.monotonic() >= self._next_page:
            self.write_pages(running=True)

    def write_pages(self, *, running: bool) -> None:
        """Write the page of each run; a full disk is left to the tiles to report."""
        from geotune.mapping.page import PAGE, render_page

        started = time.monotonic()
        for (store, plan), written in zip(self._folders, self.scenes_written, strict=True):
            states = read_states(store, plan)
            faults = [(each["scene"], each["error"]) for each in plan.failed]
            faults += [(f.scene, f.error) for f in read_failures(store, plan, states)]
            page = render_page(
                store.root,
                plan,
                states,
                written=written,
                faults=faults,
                seconds_left=self.seconds_left,
                running=running,
            )
            with suppress(OutputError):
                store.write(PAGE, page)
        now = time.monotonic()
        self._next_page = now + max(SECONDS_BETWEEN_PAGES, (now - started) / PAGE_SHARE)


def _cost(tile: Tile) -> int:
    return max(1, tile.windows)
