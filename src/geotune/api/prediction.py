"""`geotune predict`: maps of scenes, or a table of images, with a run or an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from geotune.adapter_config import load_adapter_config
from geotune.config import load_recipe
from geotune.data.raster.metadata import require_metadata
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import Names, Patterns
from geotune.data.scenes.open_scenes import open_rasters
from geotune.data.scenes.quality import with_quality
from geotune.errors import GeotuneError
from geotune.factory.build_data import (
    declared_bands_nodata,
    quality_rule,
    require_dates,
    resolution_m,
)
from geotune.training.run_dir import RunDir

if TYPE_CHECKING:
    from geotune.factory.build_model import BuiltModel
    from geotune.tasks.base import TableTask, ValueTask

Told = Callable[[str, int, int], None]

MAP_WINDOW = 256
"""Side of the windows of a map, where nothing says how it was trained."""


class Predicted(Protocol):
    """What a prediction left; each kind has more of its own.

    Attributes:
        name: of the scene, or of the table.
        windows: that the model saw.
        seconds: wall time.
        notes: what a user should know.
        files: what was written, the map or table first.
        said: what is in it, for people.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def windows(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def files(self) -> list[Path]: ...  # noqa: D102
    @property
    def said(self) -> str: ...  # noqa: D102


def predict_run(
    run: Path,
    scenes: Sequence[str],
    out: Path,
    *,
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    probabilities: bool = False,
    polygons: bool = True,
    score: float | None = None,
    weights: Path | None = None,
    backbone: str | None = None,
    bands: Names | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    device: str = "auto",
    progress: Told | None = None,
) -> list[Predicted]:
    """Predict scenes with a finished run, or with a folder that holds only an adapter.

    What is written is what the task makes: a map of classes or of numbers of each scene, or one
    table of all images, the objects of each scene. `probabilities` and `polygons` are for maps of
    classes; `overlap` is for maps and objects; `score` is the least of objects, by default that of
    each class at which F1 was highest in validation. `bands` and `nodata` say what the scenes'
    files do not; by default as the run's recipe does, and a run that was trained at some
    `data.resolution` maps at that. `quality` is the pattern of the scenes' masks, which hide what
    the recipe's `data.quality` says. `backbone` names a Python file of the user's,
    as in `load_adapter`. Raises `GeotuneError` before anything is written where a scene does not
    fit.
    """
    card = load_adapter_config(run)
    folder = RunDir(run)
    resolution, rule = None, None
    if folder.recipe.is_file():
        recipe = load_recipe(folder.recipe)[0]
        data = recipe.data
        own, none = declared_bands_nodata(data)
        bands, nodata = bands or own, none if nodata is None else nodata
        window = window or data.window
        resolution, rule = resolution_m(recipe), quality_rule(recipe)
    sources = open_rasters(
        _by_modality(scenes),
        bands=bands,
        wanted_bands=card.normalization.bands,
        nodata=nodata,
        resolution=resolution,
    )
    if quality is not None:
        if rule is None:
            raise GeotuneError(
                f"--quality {quality}: {run} was trained without data.quality, which says what in "
                "a mask flags a pixel; leave it out"
            )
        sources = with_quality(sources, quality, replace(rule[1], mask_image=True))
    require_metadata(sources, card.metadata)
    from geotune.api.environment import pick_device
    from geotune.factory.build_model import load_adapter

    built = load_adapter(run, weights, backbone=backbone)
    require_dates(sources, built.backbone.timesteps)
    if probabilities and built.task.output_kind != "classes":
        raise GeotuneError(
            f"--probabilities: is for maps of classes, but {run} gives {built.task.output_kind}"
        )
    options: dict[str, Any] = {
        "bands": built.normalization.bands,
        "window": window,
        "batch_size": batch_size,
        "device": pick_device(device),
        "metadata": built.backbone.metadata,
    }
    maps: dict[str, Any] = {
        "overlap": overlap,
        "probabilities": probabilities,
        "polygons": polygons,
    }
    if built.task.output_kind == "objects":
        maps["scores"] = _least_scores(folder, built, score)
    return PRODUCTS[built.task.output_kind](built, sources, out, progress, options, **maps)


def _by_modality(scenes: Sequence[str]) -> Patterns:
    """`S2L2A=s2/*.tif` and `S1GRD=s1/*.tif` by modality; else the patterns as they are."""
    pairs = [text.partition("=") for text in scenes]
    if all(sign and name.isidentifier() for name, sign, _ in pairs):
        return {name: pattern for name, _, pattern in pairs}
    return list(scenes)


Sources = dict[str, RasterSource]


def _class_maps(
    built: BuiltModel,
    sources: Sources,
    out: Path,
    progress: Told | None,
    options: dict[str, Any],
    **maps: Any,
) -> list[Predicted]:
    from geotune.inference.segmentation import map_classes

    model = _answering(built, options["device"])
    options = {**options, **maps, "window": options["window"] or MAP_WINDOW}
    return [
        map_classes(
            model,
            source,
            out,
            classes=built.task.classes,
            name=name,
            progress=_named(progress, name),
            **options,
        )
        for name, source in sources.items()
    ]


def _value_maps(
    built: BuiltModel,
    sources: Sources,
    out: Path,
    progress: Told | None,
    options: dict[str, Any],
    *,
    overlap: float,
    **_: Any,
) -> list[Predicted]:
    from geotune.inference.regression import map_values

    task = cast("ValueTask", built.task)
    model = _answering(built, options["device"])
    options = {**options, "overlap": overlap, "window": options["window"] or MAP_WINDOW}
    return [
        map_values(
            model,
            source,
            out,
            quantity=task.classes[0],
            unit=task.unit,
            summed=task.report_total,
            name=name,
            progress=_named(progress, name),
            **options,
        )
        for name, source in sources.items()
    ]


def _table(
    built: BuiltModel,
    sources: Sources,
    out: Path,
    progress: Told | None,
    options: dict[str, Any],
    **_: Any,
) -> list[Predicted]:
    from geotune.inference.image_table import write_image_table

    rows = cast("TableTask", built.task).rows
    model = _answering(built, options["device"])
    told = _named(progress, "images")
    return [write_image_table(model, sources, out, rows=rows, progress=told, **options)]


def _objects(
    built: BuiltModel,
    sources: Sources,
    out: Path,
    progress: Told | None,
    options: dict[str, Any],
    *,
    overlap: float,
    scores: dict[str, float],
    **_: Any,
) -> list[Predicted]:
    from geotune.inference.detection import find_objects

    task: Any = built.task
    choice: Any = built.model.decoder.choice
    model = _answering(built, options["device"])
    options = {**options, "overlap": overlap, "window": options["window"] or MAP_WINDOW}
    return [
        find_objects(
            model,
            source,
            out,
            classes=task.classes,
            scores=scores,
            nms_threshold=choice.nms_threshold,
            points=task.boxes == "points",
            name=name,
            progress=_named(progress, name),
            **options,
        )
        for name, source in sources.items()
    ]


def _least_scores(folder: RunDir, built: BuiltModel, score: float | None) -> dict[str, float]:
    """By class: what was asked for, else what did best in validation, else the detector's own."""
    best: dict[str, float | None] = {}
    if score is None and (folder.path / "metrics.json").is_file():
        best = folder.details("val").get("threshold", {})
    choice: Any = built.model.decoder.choice
    own: float = choice.score_threshold if score is None else score
    found = {name: best.get(name) for name in built.task.classes}
    return {name: own if least is None else least for name, least in found.items()}


PRODUCTS: dict[str, Callable[..., list[Predicted]]] = {
    "classes": _class_maps,
    "values": _value_maps,
    "table": _table,
    "objects": _objects,
}
"""By `Task.output_kind`: what writes it."""


def _answering(built: BuiltModel, device: Any) -> Callable[..., Any]:
    """The model, giving what the task makes of its outputs."""
    model = built.model.to(device).eval()

    def answer(images: Any, **known: Any) -> Any:
        return built.task.postprocess(model(images, **known))

    return answer


def _named(progress: Told | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
