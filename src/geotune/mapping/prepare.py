"""Check a map before its first tile, and plan it, or find the plan of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geotune.api.predict_options import LoadOptions
from geotune.api.predicted_scenes import PredictedScenes
from geotune.api.predictor import predicting_adapter
from geotune.data.issues import ErrorCollector
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.hub.download import adapter_source
from geotune.inference.geotiff import check_file_stem
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import PLAN, Plan, check_packages, plan_tiles, read_plan, write_plan
from geotune.mapping.request import check_request, make_request
from geotune.mapping.store import Store
from geotune.utils.paths import ogr_path
from geotune.utils.progress import ALL_MODULES, OnProgress, loading_libraries

DEAD = frozenset({"file-unreadable", "file-missing", "file-access", "row-invalid"})
"""Errors of a scene that is left out; any other one says that the scenes do not fit the model."""

LOCKS = "locks"


def prepare(
    run: Path | str,
    patterns: Sequence[str],
    store: Store,
    options: MapOptions,
    files: LoadOptions,
    on_progress: OnProgress,
) -> Plan:
    """The plan of a folder, which is made if it has none.

    Raises `GeotuneError` for scenes that do not fit the model, options that do not apply to it, and
    a folder of another map.
    """
    check_packages()
    if options.zarr:
        from geotune.mapping.zarr_maps import check_zarr

        check_zarr()
    adapter, config = predicting_adapter(run)
    found = PredictedScenes(adapter, config, options.scenes)
    errors = ErrorCollector(keep=True)
    entries = found.find(patterns, errors)
    adapters = [adapter, *map(adapter_source, files.ensemble)]
    masks = {name: found.mask_of(name, entry) for name, entry in entries.items()}
    request = make_request(adapters, options, entries, masks, errors)
    plan = read_plan(store)
    if plan is not None:
        check_request(store.root, plan, request)
        return plan
    _check_empty(store)
    sources = found.open(entries, errors)
    _raise_unfit(errors)
    if not sources:
        raise errors.issues[0].as_error("; no scene can be read")
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.inference.image_table import checked_window
        from geotune.mapping.tile_worker import load_predictor
    predictor = load_predictor(run, replace(options, device="cpu"), files, 0)
    predictor.check_sources(sources)
    window = predictor.window
    if predictor.kind == "table":
        checked_window(sources, window)
    else:
        predictor.windows()
        _check_scenes(sources, store, options, predictor.kind)
        _ = predictor.steps  # thresholds and scores
    scenes = {name: source.shape for name, source in sources.items()}
    tiles = plan_tiles(
        scenes, predictor.kind, window=window, overlap=options.predict.overlap, tile=options.tile
    )
    failed = [
        {"scene": issue.scene or "", "error": issue.text, "code": issue.code or ""}
        for issue in errors.issues
    ]
    classes = list(predictor.built.task.classes)
    plan = Plan(request, predictor.kind, scenes, failed, classes, window, tiles)
    write_plan(store, plan)
    written = read_plan(store)
    assert written is not None
    check_request(store.root, written, request)  # another process may have been faster
    return written


def _check_empty(store: Store) -> None:
    """Raise `GeotuneError` for a local folder with other contents than those of a map."""
    if store.local is None or not store.local.exists():
        return
    others = [name for name in sorted(os.listdir(store.local)) if not name.startswith((".", LOCKS))]
    if others and PLAN not in others and others != ["plan.parquet"]:
        raise GeotuneError(
            f"{store.root}: holds other files ({', '.join(others[:3])}); choose an empty or new "
            "folder for the map",
            code="map-exists",
            key="--out",
        )


def _raise_unfit(errors: ErrorCollector) -> None:
    """Raise the first error that is not about a file that cannot be read."""
    unfit = [issue for issue in errors.issues if issue.code not in DEAD]
    if unfit:
        raise unfit[0].as_error(f" ({len(unfit) - 1} more scenes)" if unfit[1:] else "")


def _check_scenes(
    sources: Mapping[str, RasterSource], store: Store, options: MapOptions, kind: str
) -> None:
    for name, source in sources.items():
        check_file_stem(name)
        if kind == "objects" or (kind == "classes" and options.predict.polygons):
            ogr_path((store.local or Path()) / name)
        if kind == "classes" and options.predict.polygons:
            options.predict.outlines.check_scene(source.crs, source.transform, source.shape)
