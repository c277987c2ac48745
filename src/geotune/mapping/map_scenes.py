"""`geotune map`: predict many scenes tile by tile; every step can be interrupted and resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from geotune.api.novelty import load_novelty
from geotune.api.predict_options import LoadOptions, PredictOptions
from geotune.api.predicted_scenes import SceneOptions
from geotune.api.predictor import predicting_adapter
from geotune.data.scenes.find import Names
from geotune.errors import GeotuneError
from geotune.mapping.finish import MapResult, finish
from geotune.mapping.local_workers import LocalWorkers
from geotune.mapping.options import MapOptions, plain_files
from geotune.mapping.prepare import LOCKS, prepare
from geotune.mapping.request import absolute
from geotune.mapping.runs import check_tiles, map_folders, options_of_runs
from geotune.mapping.store import Store, open_store
from geotune.mapping.work import MapFolder, MapWork
from geotune.mapping.workers import WorkerOptions, Workers
from geotune.training.lock import exclusive_lock
from geotune.utils.precision import PredictionPrecision
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries


def map_scenes(
    run: Path | str | Sequence[Path | str],
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
    precision: PredictionPrecision = "32-true",
    ensemble: Sequence[Path | str] = (),
    tta: Literal["none", "flips", "d4"] = "none",
    probabilities: bool = False,
    uncertainty: bool = False,
    novelty: bool = False,
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
        run: run folder, folder with an adapter, or `hub:ORG/NAME[@REVISION]`; or several, which
            read the images once. Each of several has its map in a folder of its name in `out`;
            those with the same frozen backbone share one pass of it. An option that does not apply
            to the kind of prediction of one of them is for the others.
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
    runs = [run] if isinstance(run, Path | str) else list(run)
    folders = map_folders(runs, str(out))
    if len(runs) > 1 and ensemble:
        raise GeotuneError(
            "--ensemble: not with several runs, as it is unknown whose predictions it is averaged "
            "with; map the ensemble by itself",
            code="option-not-applicable",
            key="--ensemble",
        )
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
            precision=precision,
            tta=tta,
            probabilities=probabilities,
            uncertainty=uncertainty,
            novelty=novelty,
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
    named = dict(zip(folders, runs, strict=True))
    each_options = {name: options for name in named}
    if len(runs) > 1 or novelty:
        with loading_libraries(on_progress, ALL_MODULES):
            if len(runs) > 1:
                each_options = options_of_runs(options, named)
            if novelty:  # of all runs, before the folder of the first is planned
                for one in runs:
                    load_novelty(*predicting_adapter(one))
    maps = []
    for name, folder in folders.items():
        store, own = open_store(folder), each_options[name]
        plan = prepare(named[name], patterns, store, own, files, on_progress)
        maps.append(MapFolder(name, absolute(named[name]), store, plan, own))
    check_tiles({each.name: each.plan for each in maps})
    settings = WorkerOptions([each.as_values() for each in maps], plain_files(files))

    def start() -> tuple[Workers, int]:
        if ray is None:
            return LocalWorkers(settings), workers
        from geotune.mapping.ray_workers import RayWorkers

        cluster = RayWorkers(ray, settings)
        return cluster, min(workers, cluster.most) if workers > 1 else cluster.most

    notes: list[str] = []

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            on_message(f"note: {text}")

    work = MapWork(maps, start, on_progress, note)
    with ExitStack() as locks:
        for each in maps:
            # one at a time writes the files of scenes, and removes what others left
            locks.enter_context(_alone(each.store, shard or "all", on_message))
        try:
            if not combine:
                work.compute(share)
            if shard is None:
                work.write_scenes(recompute=not combine)
                results = [finish(m.store, m.plan, m.options, m.run, files) for m in maps]
            else:
                results = [MapResult.of_tiles(each.store, each.plan) for each in maps]
        except BaseException:
            with suppress(Exception):  # what stopped the map is reported
                work.progress.write_pages(running=False)
            raise
        work.progress.write_pages(running=False)
    seconds = time.perf_counter() - started
    if len(maps) == 1:
        return replace(results[0], seconds=seconds)
    of_runs = dict(zip(folders, results, strict=True))
    return replace(MapResult.of_runs(str(out), of_runs, notes), seconds=seconds)


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
