"""The work on the maps of one or several runs, as jobs for workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geotune.errors import GeotuneError
from geotune.mapping.finish import read_written
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import Plan
from geotune.mapping.progress import MapProgress
from geotune.mapping.store import Store
from geotune.mapping.tile_states import read_faults, read_states, write_failure
from geotune.mapping.workers import Job, MappedRun, Workers, run_jobs
from geotune.utils.progress import OnProgress

REPAIRS = 3
"""Times that damaged tiles are computed again before a map is given up."""


@dataclass(frozen=True)
class MapFolder:
    """The map of a run.

    Attributes:
        name: of the run.
        run: the run or adapter, for other processes.
        store: the output folder.
        plan: of the map.
        options: of the map.
    """

    name: str
    run: Path | str
    store: Store
    plan: Plan
    options: MapOptions

    def as_values(self) -> MappedRun:
        """For a worker."""
        out = str(self.store.local or self.store.root)
        return MappedRun(self.name, out, str(self.run), self.options.as_values())


class MapWork:
    """Has tiles computed and files written.

    Args:
        maps: of the runs; their plans have the same tiles.
        start: starts the workers; returns how many may be used.
        on_progress: see `MapProgress`.
        on_note: receives what workers say about the runs.

    Attributes:
        progress: of the work.
    """

    def __init__(
        self,
        maps: Sequence[MapFolder],
        start: Callable[[], tuple[Workers, int]],
        on_progress: OnProgress,
        on_note: Callable[[str], None],
    ) -> None:
        self._maps, self._tiles = maps, maps[0].plan.tiles
        self._start, self._on_note = start, on_note
        self._numbers = {tile.tile: number for number, tile in enumerate(self._tiles)}
        folders = [(each.store, each.plan) for each in maps]
        self.progress = MapProgress(folders, on_progress)

    def compute(self, share: tuple[int, int]) -> None:
        """Compute the tiles of a share that are not done; those that failed are tried again."""
        done = [self._done(each) for each in self._maps]
        index, count = share
        runs_of = {
            number: [run for run, names in enumerate(done) if tile.tile not in names]
            for number, tile in list(enumerate(self._tiles))[index::count]
        }
        self._compute(runs_of, earlier=sum(not runs for runs in runs_of.values()))

    @staticmethod
    def _done(one: MapFolder) -> set[str]:
        """The tiles that are done, in full."""
        done = set(read_states(one.store, one.plan).done)
        if one.plan.kind == "table":  # images that could not be read are tried again, too
            done -= {tile.tile for tile in one.plan.tiles if read_faults(one.store, tile)}
        return done

    def write_scenes(self, *, recompute: bool) -> None:
        """Write the files of all scenes; damaged tiles are computed again, unless forbidden.

        Raises `GeotuneError` if tiles are missing and may not be computed.
        """
        for _ in range(REPAIRS):
            self._check_complete()
            damaged: dict[int, list[int]] = {}
            self._run(self._unwritten(), partial(self._keep, damaged))
            if not damaged:
                return
            if recompute:
                self._compute(damaged)
        self._check_complete()

    def _keep(self, damaged: dict[int, list[int]], job: Job, result: dict[str, Any]) -> None:
        """Count a scene that was written, and note its `damaged` tiles with their runs."""
        run = job["run"]
        if "error" in result:
            raise GeotuneError(
                f"{self._maps[run].store.root}: {job['scene']} cannot be written: "
                f"{result['error']}",
                code=result["code"],
            )
        for name in result.get("damaged", ()):
            damaged.setdefault(self._numbers[name], []).append(run)
        self.progress.scene_written(run)

    def _compute(self, runs_of: dict[int, list[int]], *, earlier: int = 0) -> None:
        """Compute tiles, each for some runs; `earlier` ones count as done."""

        def keep(job: Job, result: dict[str, Any]) -> None:
            tile = self._tiles[job["tile"]]
            if result.get("code") == "worker-lost":
                for run in job["runs"]:
                    write_failure(self._maps[run].store, tile, result["error"], result["code"])
            for note in result.get("notes", ()):
                self._on_note(note)
            self.progress.tile_done(tile)

        wanted = {number: runs for number, runs in runs_of.items() if runs}
        jobs: list[Job] = [{"tile": number, "runs": runs} for number, runs in wanted.items()]
        self.progress.start([self._tiles[number] for number in wanted], earlier)
        self._run(jobs, keep)

    def _run(self, jobs: Sequence[Job], keep: Callable[[Job, dict[str, Any]], None]) -> None:
        if jobs:
            workers, count = self._start()
            run_jobs(workers, count, jobs, keep, self.progress.tick)

    def _unwritten(self) -> list[Job]:
        jobs: list[Job] = []
        for run, each in enumerate(self._maps):
            written = read_written(each.store, each.plan, each.options)
            self.progress.scenes_written[run] = len(written)
            scenes = [name for name in each.plan.by_scene if name not in written]
            jobs += [{"scene": name, "run": run} for name in scenes]
        return jobs

    def _check_complete(self) -> None:
        for each in self._maps:
            states = read_states(each.store, each.plan)
            missing = len(self._tiles) - len(states.done) - len(states.failed)
            if missing:
                raise GeotuneError(
                    f"{each.store.root}: {missing:,} of {len(self._tiles):,} tiles are not "
                    "computed or are damaged; run the missing shards again, or the command without "
                    "--combine, which computes them",
                    code="map-incomplete",
                    key="--combine",
                )
