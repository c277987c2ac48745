"""`geotune predict`: maps, objects or tables of scenes, with a run or an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.api.predict_options import LoadOptions, PredictOptions
from geotune.api.predicted_scenes import (
    PredictedScenes,
    SceneOptions,
    check_inputs_stay,
    kept_notes,
    missed_notes,
)
from geotune.api.predictor import Predictor, predicting_adapter
from geotune.api.scene_writers import Predicted, with_notes, write_table
from geotune.data.scenes.find import Names
from geotune.inference.further_formats import FeatureFormat, FurtherFormats
from geotune.utils.precision import PredictionPrecision
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries

if TYPE_CHECKING:
    from geotune.inference.ensemble import Orientations


def predict(
    run: Path | str,
    scenes: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    precision: PredictionPrecision = "32-true",
    ensemble: Sequence[Path | str] = (),
    tta: Orientations = "none",
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
        precision: `bf16-mixed` computes matrix products and convolutions in bfloat16, which is
            faster on GPUs and CPUs that multiply it; results differ slightly from machine to
            machine.
        ensemble: further runs or adapters of the same task, classes and bands; probabilities and
            values are means over all, objects are fused, see `inference.ensemble`.
        tta: test-time augmentation: predict each window in several orientations too: `flips` (4) or
            `d4` (8), which takes as many times longer.
        probabilities: also write the class probabilities of a class map.
        uncertainty: also write how uncertain each pixel or image is: the entropy of its classes
            and, of several predictions, their disagreement; for numbers the standard deviation of
            several predictions.
        novelty: also write how far the features of each window are from those of the training, as
            a map, a column of objects or columns of a table; needs the run's `novelty.safetensors`.
            Of an ensemble it is that of `run`.
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
    out = Path(out)
    patterns = [*map(str, [scenes] if isinstance(scenes, Path | str) else scenes)]
    adapter, config = predicting_adapter(run)
    options = SceneOptions(bands=bands, nodata=nodata, quality=quality)
    opened = PredictedScenes(adapter, config, options)
    sources = opened.open(opened.find(patterns))
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.environment import pick_device
        from geotune.api.prediction_items import PredictionItems

        import_module("geotune.factory.build_model")

    predictor = Predictor(
        adapter,
        config,
        PredictOptions(
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
            formats=formats,
        ),
        LoadOptions(ensemble=ensemble, weights=weights, backbone=backbone, method=method),
        pick_device(device),
    )
    predictor.check_sources(sources)
    check_inputs_stay(sources, out, predictor.map_endings)
    missed, classes = missed_notes(patterns), predictor.built.task.classes
    items = PredictionItems(predictor.adapters, out, classes) if stac else None
    if predictor.kind == "table":
        table_notes = [*missed, *predictor.notes, *predictor.scene_notes(sources)]
        table = write_table(
            predictor.model, predictor.rows, sources, out, on_progress, predictor.image_options
        )
        table = with_notes(table, table_notes)
        return [table if items is None else items.write(table, sources)]
    missed += predictor.notes
    steps, layer = predictor.steps, predictor.layer
    results: list[Predicted] = []
    with FurtherFormats(formats, out, layer, classes, predictor.shape) as further:
        for name, source in sources.items():
            scene_notes = [*(missed if not results else ()), *predictor.scene_notes({name: source})]
            windows = predictor.windows(partial(on_progress, name))
            blocks = steps.predict(predictor.model, source, windows)
            result = steps.write(
                blocks, source, out, windows, name=name, qgis=qgis, novelty=predictor.novelty
            )
            if formats:
                package = out / f"{name}_{layer}.gpkg"
                written: Any = result
                result = replace(written, further_paths=further.add(package, source, name))
            result = with_notes(result, scene_notes)
            results.append(result if items is None else items.write(result, {name: source}))
    endings = [f"{each}.tif" for each in predictor.map_endings]
    endings += [f"{layer}{suffix}" for suffix in (".gpkg", ".geojson", ".parquet")]
    written = {path for result in results for path in result.files}
    kept = kept_notes([out / f"{name}_{each}" for name in sources for each in endings], written)
    results[0] = with_notes(results[0], kept)
    return results
