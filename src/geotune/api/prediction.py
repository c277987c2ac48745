"""`geotune predict`: maps, objects or tables of scenes, with a run or an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geotune.adapter_config import AdapterConfig, load_adapter_config
from geotune.api.class_thresholds import class_thresholds, missed_thresholds
from geotune.api.recipes import pretraining_error
from geotune.api.scene_writers import (
    Predicted,
    class_map_writer,
    object_writer,
    table_rows,
    value_map_writer,
    write_table,
)
from geotune.data.raster.metadata import check_metadata
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import Names
from geotune.data.scenes.open_scenes import (
    by_modality,
    list_scenes,
    missed_images,
    open_rasters,
)
from geotune.data.scenes.quality import with_quality
from geotune.errors import GeotuneError
from geotune.factory.build_data import require_dates
from geotune.hub.download import AdapterSource, adapter_source
from geotune.inference.further_formats import FeatureFormat, FurtherFormats, Shape
from geotune.inference.polygon_writer import PolygonOptions
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries

if TYPE_CHECKING:
    from geotune.factory.build_model import BuiltModel
    from geotune.inference.ensemble import Orientations, Spread
    from geotune.tasks.base import TableTask


def predict(
    run: Path | str,
    scenes: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    ensemble: Sequence[Path | str] = (),
    tta: Orientations = "none",
    probabilities: bool = False,
    uncertainty: bool = False,
    polygons: bool = True,
    min_area: str | None = None,
    simplify: str | None = None,
    right_angles: bool = False,
    threshold: float | str | Mapping[str, float | str] | None = None,
    score: float | None = None,
    qgis: bool = True,
    formats: Sequence[FeatureFormat] = (),
    stac: bool = False,
    weights: Path | str | None = None,
    backbone: str | None = None,
    method: str | None = None,
    bands: Names | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
) -> list[Predicted]:
    """Predict whole scenes with a finished run, or with a folder that holds only an adapter.

    Depending on the task this writes a class map or a map of numbers per scene, the objects of each
    scene, or one table of all images. A run trained at a `data.resolution` maps at that resolution.

    Args:
        run: run folder, folder with `adapter.json` and `adapter.safetensors`, or an adapter on the
            hub, `hub:ORG/NAME[@REVISION]`.
        scenes: one or several paths or patterns; `MODALITY=pattern` for several modalities.
        out: output folder.
        window: window side in pixels; by default as in training.
        overlap: share of a window that its neighbour covers too, for maps and objects.
        batch_size: windows at once.
        ensemble: further runs or adapters of the same task, classes and bands; probabilities and
            values are means over all, objects are fused, see `inference.ensemble`.
        tta: test-time augmentation: predict each window in several orientations too: `flips` (4) or
            `d4` (8), which takes as many times longer.
        probabilities: also write the class probabilities of a class map.
        uncertainty: also write how uncertain each pixel or image is: the entropy of its classes
            and, of several predictions, their disagreement; for numbers the standard deviation of
            several predictions.
        polygons: also write the polygons of a class map.
        min_area: smallest polygon that is written, such as `50 m2` or `12 px`.
        simplify: tolerance by which outlines of polygons are simplified, such as `2 m` or `1 px`.
        right_angles: give outlines of polygons right angles, as those of buildings.
        threshold: probability from which pixels of a class map get a class, by class:
            `{"ship": 0.2, "wake": "auto"}`, as text `ship=0.2,wake=auto`; a single value is that
            of the rarest class. `auto` is the one with the best IoU in validation, known for all
            classes but the most common one. A pixel that several classes reach gets the one whose
            probability is the largest multiple of its threshold; one that none reaches gets the
            most likely class without a threshold. By default every pixel gets its most likely
            class.
        score: minimum score of objects; by default the score of each class with the best F1 in
            validation.
        qgis: also write a QGIS style beside each file, and a project of each scene.
        formats: also write objects or polygons as `parquet` (GeoParquet, one per scene) or `coco`
            (COCO JSON in pixels, one of all scenes).
        stac: also write a STAC item of each scene, and that of the model, `card.json`.
        weights: of the backbone, if they moved since the training.
        backbone: as in `load_adapter`.
        method: as in `load_adapter`.
        bands: names of the files' bands; by default as in the training.
        nodata: nodata value of the files; by default as in the training.
        quality: pattern of the scenes' quality masks, evaluated as `data.quality` of the training.
        device: `auto`, `cpu`, `gpu` or `mps`.
        on_progress: receives scene name, finished and total windows, and the progress of other
            phases.

    Raises `GeotuneError` before anything is written if a scene does not fit the model.
    """
    adapter = adapter_source(run)
    run, out = adapter.folder, Path(out)
    patterns = [*map(str, [scenes] if isinstance(scenes, Path | str) else scenes)]
    adapter_config = load_adapter_config(run)
    if adapter_config.sections["task"].get("kind") == "reconstruct":
        raise pretraining_error(run)
    settings = adapter_config.prediction
    masks = settings.quality
    bands = bands or settings.bands
    wanted = adapter_config.normalization.bands
    sources = open_rasters(
        by_modality(patterns),
        bands=bands,
        wanted_bands=wanted,
        nodata=settings.nodata if nodata is None else nodata,
        resolution=settings.resolution_m,
    )
    if quality is not None:
        if masks is None:
            raise GeotuneError(
                f"--quality {quality}: {run} was trained without data.quality, so it is unknown "
                "which mask values to exclude; remove --quality",
                code="option-not-applicable",
                key="data.quality",
            )
        masks = masks.model_copy(update={"pattern": quality, "mask_image": True})
        entries = list_scenes(by_modality(patterns), bands=bands, wanted_bands=wanted)
        fields = {name: entry.fields for name, entry in entries.items()}
        sources = with_quality(sources, masks, fields)
    check_metadata(sources, adapter_config.metadata)
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.environment import pick_device
        from geotune.factory.build_model import load_adapter, score_thresholds

    models = [adapter, *map(adapter_source, ensemble)]
    hub_models = [f"model: {model}" for model in models if model.reference is not None]
    built = load_adapter(adapter, weights, backbone=backbone, method=method)
    require_dates(sources, built.backbone.timesteps)
    kind = built.task.output_kind
    others = [
        load_adapter(
            _checked_member(each, adapter, adapter_config),
            weights,
            backbone=backbone,
            method=method,
        )
        for each in models[1:]
    ]
    if probabilities and kind != "classes":
        raise GeotuneError(
            f"--probabilities: only for class maps, but {run} predicts {kind}; remove the option",
            code="option-not-applicable",
        )
    if uncertainty and kind == "objects":
        raise GeotuneError(
            f"--uncertainty: {run} predicts objects, whose scores tell how certain they are; with "
            "--tta or --ensemble a score is the mean over all predictions; remove --uncertainty",
            code="option-not-applicable",
        )
    _check_score(score, kind, run)
    layer = _feature_layer(formats, kind, polygons, run)
    polygon_options = PolygonOptions(min_area, simplify, right_angles)
    if kind != "classes" or not polygons:
        _refuse_polygon_options(polygon_options, run, kind)
    if kind != "classes" and threshold is not None:
        raise GeotuneError(
            f"--threshold: only for class maps, but {run} predicts {kind}; objects have --score",
            code="option-not-applicable",
        )
    options: dict[str, Any] = {
        "bands": built.normalization.bands,
        "batch_size": batch_size,
        "device": pick_device(device),
        "window": settings.window if window is None else window,
        "metadata": built.backbone.metadata,
    }
    from geotune.api.prediction_items import PredictionItems
    from geotune.inference.ensemble import ORIENTATIONS, Ensemble, averaged, fused
    from geotune.inference.input_check import compare_images

    members = Ensemble(
        [_postprocessing(each, options["device"]) for each in (built, *others)],
        ORIENTATIONS[tta],
    )
    spread = _spread(built.task, len(members), run) if uncertainty else "none"
    model = fused(members) if kind == "objects" else averaged(members, spread)
    missed = [issue.text for issue in missed_images(by_modality(patterns), key=None)]

    def notes(of: dict[str, RasterSource]) -> list[str]:
        means = [f"means of {len(members)} predictions: {members}"] if len(members) > 1 else []
        if settings.images is None:
            return [*hub_models, *means]
        return [*hub_models, *means, *compare_images(of, settings.images)]

    items = PredictionItems(models, out, built.task.classes) if stac else None
    if kind == "table":
        table_notes = [*missed, *notes(sources)]
        rows = table_rows(cast("TableTask", built.task), spread, len(members))
        table = write_table(model, rows, sources, out, on_progress, options)
        table = _with_notes(table, table_notes)
        return [table if items is None else items.write(table, sources)]
    if kind == "classes":
        chosen = class_thresholds(settings, built.task.classes, threshold)
        missed += missed_thresholds(settings) if threshold is None else []
        write = class_map_writer(built, probabilities, polygons and polygon_options, chosen)
        write = partial(write, uncertainty=uncertainty, members=len(members))
    elif kind == "values":
        write = partial(value_map_writer(built), uncertainty=uncertainty)
    else:
        write = object_writer(built, score_thresholds(settings, built, score))
    from geotune.inference.sliding_window import WindowOptions

    options["overlap"] = overlap
    results: list[Predicted] = []
    shape: Shape = "polygons" if kind == "classes" else getattr(built.task, "boxes", "horizontal")
    with FurtherFormats(formats, out, layer, built.task.classes, shape) as further:
        for name, source in sources.items():
            scene_notes = [*(missed if not results else ()), *notes({name: source})]
            windows = WindowOptions(**options, on_progress=partial(on_progress, name))
            result = write(model, source, out, windows, name=name, qgis=qgis)
            if formats:
                package = out / f"{name}_{layer}.gpkg"
                written: Any = result
                result = replace(written, further_paths=further.add(package, source, name))
            result = _with_notes(result, scene_notes)
            results.append(result if items is None else items.write(result, {name: source}))
    return results


def _check_score(score: float | None, kind: str, run: Path) -> None:
    """Raise `GeotuneError` for a minimum score of what has none, or outside 0 to 1."""
    if score is not None and kind != "objects":
        raise GeotuneError(
            f"--score: only for objects, but {run} predicts {kind}; remove the option",
            code="option-not-applicable",
        )
    if score is not None and not 0 <= score <= 1:
        raise GeotuneError(f"--score: found {score:g}, expected 0 to 1", code="option-invalid")


def _feature_layer(formats: Sequence[FeatureFormat], kind: str, polygons: bool, run: Path) -> str:
    """The layer of the GeoPackages. Raises `GeotuneError` for formats if there are none."""
    if formats and not (kind == "objects" or (kind == "classes" and polygons)):
        raise GeotuneError(
            f"--format {' '.join(formats)}: only for objects and polygons, but {run} "
            + ("is predicted without polygons" if kind == "classes" else f"predicts {kind}")
            + "; remove the option",
            code="option-not-applicable",
        )
    return "objects" if kind == "objects" else "polygons"


def _with_notes(result: Any, notes: Sequence[str]) -> Predicted:
    """The result of a writer with further notes, before its own."""
    changed: Predicted = replace(result, notes=(*notes, *result.notes))
    return changed


def _checked_member(
    source: AdapterSource, run: AdapterSource, first: AdapterConfig
) -> AdapterSource:
    """A further run of an ensemble. Raises `GeotuneError` if it answers another question."""
    config = load_adapter_config(source.folder)
    tasks = [
        {key: each.sections["task"].get(key) for key in ("kind", "classes", "boxes", "level")}
        for each in (first, config)
    ]
    problem = ""
    if tasks[0] != tasks[1]:
        differing = next(key for key in tasks[0] if tasks[0][key] != tasks[1][key])
        problem = f"its task.{differing} is {tasks[1][differing]}, not {tasks[0][differing]}"
    elif config.normalization.bands != first.normalization.bands:
        bands = [", ".join(each.normalization.bands) for each in (config, first)]
        problem = f"its bands are {bands[0]}, not {bands[1]}"
    elif config.prediction.resolution_m != first.prediction.resolution_m:
        sizes = [each.prediction.resolution_m for each in (config, first)]
        problem = f"its data.resolution is {sizes[0]}, not {sizes[1]}"
    elif config.metadata != first.metadata:
        problem = f"its backbone takes {config.metadata}, not {first.metadata}"
    if problem:
        raise GeotuneError(
            f"--ensemble {source}: cannot be averaged with {run}: {problem}; name runs of one "
            "task, with the same classes, bands and resolution",
            code="ensemble-mismatch",
            file=source.folder,
        )
    return source


def _spread(task: Any, members: int, run: Path) -> Spread:
    """What describes the members beside their mean. Raises `GeotuneError` if nothing can."""
    from geotune.tasks.classify import Classify

    if task.output_kind == "classes":
        return "entropy" if members > 1 else "none"  # that of the map itself is computed from it
    if isinstance(task, Classify):
        return "binary-entropy" if task.multilabel else "entropy"
    if members == 1:
        raise GeotuneError(
            f"--uncertainty: {run} predicts numbers, whose uncertainty is the standard deviation "
            "of several predictions; add --tta d4, or --ensemble with further runs",
            code="option-not-applicable",
        )
    return "deviation"


def _refuse_polygon_options(options: PolygonOptions, run: Path, kind: str) -> None:
    """Raise `GeotuneError` if options of polygons are given, but none are written."""
    if options != PolygonOptions():
        raise GeotuneError(
            f"--min-area, --simplify, --right-angles: only for polygons of class maps, but {run} "
            + ("is predicted without polygons" if kind == "classes" else f"predicts {kind}")
            + "; remove them",
            code="option-not-applicable",
        )


def _postprocessing(built: BuiltModel, device: Any) -> Callable[..., Any]:
    """The model followed by the post-processing of the task."""
    model = built.model.to(device).eval()

    def answer(images: Any, **known: Any) -> Any:
        return built.task.postprocess(model(images, **known))

    return answer
