"""`geotune predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress


def predict(
    run: Path,
    *scenes: str,
    out_dir: Annotated[Path, Parameter(name="--out")],
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    ensemble: list[Path] | None = None,
    tta: Literal["none", "flips", "d4"] = "none",
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    uncertainty: Annotated[bool, Parameter(negative="")] = False,
    novelty: Annotated[bool, Parameter(negative="")] = False,
    polygons: bool = True,
    min_area: str | None = None,
    simplify: str | None = None,
    right_angles: Annotated[bool, Parameter(negative="")] = False,
    threshold: list[str] | None = None,
    score: float | None = None,
    qgis: bool = True,
    formats: Annotated[list[Literal["parquet", "coco"]] | None, Parameter(name="--format")] = None,
    stac: Annotated[bool, Parameter(negative="")] = False,
    bands: list[str] | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    weights: Path | None = None,
    backbone: str | None = None,
    method: str | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] = "auto",
    as_json: Json = False,
) -> None:
    """Predict whole scenes: maps as Cloud-Optimized GeoTIFF, objects, or a table of images.

    The output depends on the task of the run: a class map with polygons (GeoPackage), a map of
    numbers, a density map with the count, objects (GeoPackage and GeoJSON), or a CSV of images with
    their classes or numbers.

    Parameters
    ----------
    run
        A run folder, a folder with adapter.json and adapter.safetensors, or
        hub:ORG/NAME[@REVISION].
    scenes
        GeoTIFFs or patterns; {band} for one file per band, {date} for one file per date. For
        several modalities one pattern each: S2L2A=s2/*.tif S1GRD=s1/*.tif.
    out_dir
        Output folder.
    window
        Window side in pixels; by default as in training.
    overlap
        Share of a window that its neighbour covers too, for maps and objects.
    batch_size
        Windows at once.
    ensemble
        A further run of the same task, classes and bands, whose predictions are averaged with those
        of RUN; repeat it for more.
    tta
        Test-time augmentation: average each window over 4 (flips) or all 8 (d4) orientations, which
        takes as many times longer.
    probabilities
        Also write a GeoTIFF of class probabilities.
    uncertainty
        Also write a GeoTIFF (or columns) of the uncertainty: the entropy of the classes and, with
        --ensemble or --tta, how much the predictions disagree; for numbers their standard
        deviation.
    novelty
        Also write a GeoTIFF (or columns) of how far the features of each window are from those of
        the training, as the share of validation windows that are nearer. Runs of older versions
        need geotune finish RUN first.
    polygons
        Also write the polygons of a class map, with their mean probability.
    min_area
        Smallest polygon, such as "50 m2" or "12 px".
    simplify
        Tolerance to simplify the outlines of polygons, such as "2 m" or "1 px".
    right_angles
        Give the outlines of polygons right angles, as those of buildings.
    threshold
        Probability from which pixels of a class map get a class: CLASS=NUMBER, or CLASS=auto for
        the best one in validation; without CLASS= for the rarest class. For several classes repeat
        it, or ship=0.2,wake=auto: a pixel gets the class whose probability is the largest multiple
        of its threshold. By default every pixel gets its most likely class.
    score
        Minimum score of objects; by default the score with the best F1 in validation.
    qgis
        Also write a QGIS style beside each file, and a QGIS project of each scene.
    formats
        Also write objects or polygons as GeoParquet (parquet), or all scenes into one COCO JSON in
        pixels (coco), for annotation tools; repeat it for both.
    stac
        Also write a STAC item of each scene (SCENE_item.json), with links to the scene and to the
        model, whose item is card.json.
    bands
        Band names in file order, if the files do not contain them.
    nodata
        Nodata value, if the files do not contain it.
    quality
        Cloud or quality masks, a pattern such as masks/{stem}.tif; pixels flagged by data.quality
        of the run's recipe become nodata.
    weights
        Weights of the backbone, if they moved since the training.
    backbone
        Name of a backbone that is a Python file of yours; confirms that its code may run.
    method
        Method that is a Python file of yours (method.kind); confirms that its code may run.
    device
        Compute device.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    if not scenes:
        from geotune.errors import RecipeError

        raise RecipeError(
            "predict: no scene is given; name at least one GeoTIFF", code="option-invalid"
        )
    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.prediction import predict as predict_run
        results = predict_run(
            run,
            scenes,
            out_dir,
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            ensemble=ensemble or (),
            tta=tta,
            probabilities=probabilities,
            uncertainty=uncertainty,
            novelty=novelty,
            polygons=polygons,
            min_area=min_area,
            simplify=simplify,
            right_angles=right_angles,
            threshold=None if threshold is None else ",".join(threshold),
            score=score,
            qgis=qgis,
            formats=formats or (),
            stac=stac,
            weights=weights,
            backbone=backbone,
            method=method,
            bands=bands,
            nodata=nodata,
            quality=quality,
            device=device,
            on_progress=on_progress,
        )
    if as_json:
        print_json({"scenes": [vars(result) for result in results]})
        return
    for result in results:
        first, *others = result.files
        out().print(f"{escape(f'{result.name}: {first}')}")
        for path in others:
            out().print(f"  {escape(str(path))}")
        line = f"{result.summary}; {result.windows} windows in {result.seconds:.1f} s"
        out().print(f"  {escape(line)}")
        for note in result.notes:
            message(f"note: {note}")
