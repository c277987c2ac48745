"""`geotune map`: predict many scenes tile by tile; every step can be interrupted and resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from geotune.api.predicted_scenes import SceneOptions
from geotune.api.predictor import LoadOptions, PredictOptions
from geotune.data.scenes.find import Names
from geotune.errors import GeotuneError
from geotune.mapping.finish import MapResult, finish, read_written
from geotune.mapping.local_workers import LocalWorkers
from geotune.mapping.options import MapOptions, plain_files
from geotune.mapping.plan import Plan, Tile
from geotune.mapping.prepare import LOCKS, prepare
from geotune.mapping.progress import MapProgress
from geotune.mapping.request import absolute
from geotune.mapping.store import Store, open_store
from geotune.mapping.tile_states import read_states, write_failure
from geotune.mapping.workers import Job, WorkerOptions, Workers, run_jobs
from geotune.training.lock import exclusive_lock
from geotune.utils.progress import OnProgress, ignore_progress

REPAIRS = 3
"""Times that damaged tiles are computed again before a map is given up."""


def map_scenes(
    run: Path | str,
    scenes: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    workers: int = 1,
    ray: str | None = None,
    shard: str | None = None,
    combine: bool = False,
    tile: int = 2048,
    threads: int = 1,
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    ensemble: Sequence[Path | str] = (),
    tta: Literal["none", "flips", "d4"] = "none",
    probabilities: bool = False,
    uncertainty: bool = False,
    polygons: bool = True,
    min_area: str | None = None,
    simplify: str | None = None,
    right_angles: bool = False,
    threshold: float | str | Mapping[str, float | str] | None = None,
    score: float | None = None,
    qgis: bool = True,
    formats: Sequence[Literal["parquet"]] = (),
    zarr: bool = False,
    weights: Path | str | None = None,
    backbone: str | None = None,
    method: str | None = None,
    bands: Names | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    on_message: Callable[[str], None] = lambda text: None,
) -> MapResult:
    """Predict many scenes tile by tile, on one or many machines; the same call resumes.

    The result is that of `geotune.predict` on every scene, up to rounding. It depends on the run,
    the options and the scenes alone: not on the order of the tiles, the workers, or restarts.

    Args:
        run: run folder, folder with an adapter, or `hub:ORG/NAME[@REVISION]`.
        scenes: patterns of images, or tables: CSV, GeoParquet or STAC.
        out: output folder, empty or of the same map; or the URL of an object store.
        workers: processes on this machine, or actors of a Ray cluster.
        ray: address of a Ray cluster.
        shard: `i/n`, compute only every n-th tile, counted from `i` = 0.
        combine: compute no tile; write the files of the scenes out of the tiles of all shards.
        tile: side of a tile in pixels.
        threads: CPU threads of each worker.
        zarr: also write the maps as Zarr v3, one shard per tile.

    The other arguments are those of `geotune.predict`. Raises `GeotuneError` before the first tile
    if a scene does not fit the model, and for a folder of another map.
    """
    started = time.perf_counter()
    share = _share(shard, combine, workers)
    store = open_store(str(out))
    files = LoadOptions(
        ensemble=[absolute(each) for each in ensemble],
        weights=weights if weights is None or "://" in str(weights) else absolute(weights),
        backbone=backbone,
        method=method,
    )
    options = MapOptions(
        predict=PredictOptions(
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            tta=tta,
            probabilities=probabilities,
            uncertainty=uncertainty,
            polygons=polygons,
            min_area=min_area,
            simplify=simplify,
            right_angles=right_angles,
            threshold=threshold,
            score=score,
            formats=tuple(formats),
        ),
        scenes=SceneOptions(
            bands=bands,
            nodata=nodata,
            quality=None if quality is None else os.path.abspath(quality),
        ),
        tile=tile,
        threads=threads,
        device=device,
        qgis=qgis,
        zarr=zarr,
    )
    patterns = [*map(str, [scenes] if isinstance(scenes, Path | str) else scenes)]
    plan = prepare(run, patterns, store, options, files, on_progress)
    settings = WorkerOptions(
        out=str(store.local or store.root),
        run=str(absolute(run)),
        files=plain_files(files),
        options=options.as_values(),
    )

    def start() -> tuple[Workers, int]:
        if ray is None:
            return LocalWorkers(settings), workers
        from geotune.mapping.ray_workers import RayWorkers

        cluster = RayWorkers(ray, settings)
        return cluster, min(workers, cluster.most) if workers > 1 else cluster.most

    mapping = _Mapping(store, plan, options, start, on_progress)
    with _alone(store, "combine" if combine else shard or "all", on_message):
        if not combine:
            mapping.compute(share)
        if shard is None:
            mapping.write_scenes(recompute=not combine)
            result = finish(store, plan, options, absolute(run), files)
        else:
            result = MapResult.of_tiles(store, plan)
        mapping.progress.write_page(running=False)
    return replace(result, seconds=time.perf_counter() - started)


class _Mapping:
    """The work on a map, as jobs for workers."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        options: MapOptions,
        start: Callable[[], tuple[Workers, int]],
        on_progress: OnProgress,
    ) -> None:
        self._store, self._plan, self._options = store, plan, options
        self._start = start
        self._numbers = {tile.tile: number for number, tile in enumerate(plan.tiles)}
        self.progress = MapProgress(store, plan, on_progress)

    def compute(self, share: tuple[int, int]) -> None:
        """Compute the tiles of a share that are not done; those that failed are tried again."""
        done = read_states(self._store, self._plan).done
        index, count = share
        missing = [tile for tile in self._plan.tiles[index::count] if tile.tile not in done]
        self._compute(missing)

    def write_scenes(self, *, recompute: bool) -> None:
        """Write the files of all scenes; damaged tiles are computed again, unless forbidden.

        Raises `GeotuneError` if tiles are missing and may not be computed.
        """
        for _ in range(REPAIRS):
            self._check_complete()
            damaged: list[str] = []
            jobs = [{"scene": name} for name in self._unwritten()]

            def keep(job: Job, result: dict[str, Any], damaged: list[str] = damaged) -> None:
                if "error" in result:
                    raise GeotuneError(
                        f"{self._store.root}: {job['scene']} cannot be written: {result['error']}",
                        code=result["code"],
                    )
                damaged += result.get("damaged", ())
                self.progress.scene_written()

            self._run(jobs, keep)
            if not damaged:
                return
            if recompute:
                self._compute([self._plan.tiles[self._numbers[name]] for name in damaged])
        self._check_complete()

    def _compute(self, tiles: Sequence[Tile]) -> None:
        def keep(job: Job, result: dict[str, Any]) -> None:
            tile = self._plan.tiles[job["tile"]]
            if result.get("code") == "worker-lost":
                write_failure(self._store, tile, result["error"], result["code"])
            self.progress.tile_done(tile, failed="error" in result)

        self.progress.start(tiles)
        self._run([{"tile": self._numbers[tile.tile]} for tile in tiles], keep)

    def _run(self, jobs: Sequence[Job], keep: Callable[[Job, dict[str, Any]], None]) -> None:
        if jobs:
            workers, count = self._start()
            run_jobs(workers, count, jobs, keep, self.progress.tick)

    def _unwritten(self) -> list[str]:
        written = read_written(self._store, self._plan, self._options)
        self.progress.scenes_written = len(written)
        return [name for name in self._plan.by_scene if name not in written]

    def _check_complete(self) -> None:
        states = read_states(self._store, self._plan)
        missing = len(self._plan.tiles) - len(states.done) - len(states.failed)
        if missing:
            raise GeotuneError(
                f"{self._store.root}: {missing:,} of {len(self._plan.tiles):,} tiles are not "
                "computed or are damaged; run the missing shards again, or the command without "
                "--combine, which computes them",
                code="map-incomplete",
                key="--combine",
            )


def _share(shard: str | None, combine: bool, workers: int) -> tuple[int, int]:
    """Index and number of shares."""
    if workers < 1:
        raise GeotuneError(
            f"--workers: found {workers}, expected at least 1", code="option-invalid"
        )
    if shard is None:
        return 0, 1
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise GeotuneError(
            f"--shard: found {shard!r}, expected i/n with i from 0 to n - 1, such as 0/8",
            code="option-invalid",
            key="--shard",
        )
    if combine:
        raise GeotuneError(
            "--combine: not with --shard; run it once, after all shards",
            code="option-invalid",
            key="--combine",
        )
    return int(index), int(count)


@contextmanager
def _alone(store: Store, work: str, on_message: Callable[[str], None]) -> Iterator[None]:
    """Keep a second process from the same work in a local folder."""
    if store.local is None:
        yield
        return
    with exclusive_lock(store.local / LOCKS / work.replace("/", "of"), on_message, key="--out"):
        yield
