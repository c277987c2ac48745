"""`geotune predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, err, escape, out, print_json, say


def predict(
    run: Path,
    *scenes: str,
    out_dir: Annotated[Path, Parameter(name="--out")],
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    polygons: bool = True,
    score: float | None = None,
    bands: list[str] | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    weights: Path | None = None,
    backbone: str | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] = "auto",
    as_json: Json = False,
) -> None:
    """Predict whole scenes: maps as Cloud-Optimised GeoTIFF, objects, or a table of images.

    What is written is what the run was trained for: a map of classes with polygons as GeoPackage, a
    map of numbers, of a density with the count, objects as GeoPackage and GeoJSON, or a CSV of
    images with what each of them is.

    Parameters
    ----------
    run
        A run folder, or a folder with adapter.json and adapter.safetensors.
    scenes
        GeoTIFFs, or patterns; {band} where each band has a file, {date} where each date has. Of
        several modalities a pattern each: S2L2A=s2/*.tif S1GRD=s1/*.tif.
    out_dir
        Where the maps go.
    window
        Side in pixels of what the model sees at once; by default as in training.
    overlap
        Share of a window that its neighbour covers too, in maps and of objects.
    batch_size
        Windows at once.
    probabilities
        Write a GeoTIFF of probabilities beside a map of classes.
    polygons
        Write polygons beside a map of classes.
    score
        Least score of objects; by default the one at which F1 was highest in validation.
    bands
        Names of the files' bands in file order, where the files do not say.
    nodata
        Value without data, where the files do not say.
    quality
        Masks of clouds or quality, a pattern such as masks/{stem}.tif: what data.quality of the
        run's recipe flags in them is left without data.
    weights
        Of the backbone, where they lie elsewhere than when it was trained.
    backbone
        Its name, where it is a Python file of yours: an adapter may not run code by itself.
    device
        Where to compute.
    """
    from geotune.api.prediction import predict_run
    from geotune.utils.progress import scene_progress

    if not scenes:
        from geotune.errors import RecipeError

        raise RecipeError("predict: no scene is given; name at least one GeoTIFF")
    with scene_progress(err()) as progress:
        results = predict_run(
            run,
            scenes,
            out_dir,
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            probabilities=probabilities,
            polygons=polygons,
            score=score,
            weights=weights,
            backbone=backbone,
            bands=bands,
            nodata=nodata,
            quality=quality,
            device=device,
            progress=progress,
        )
    if as_json:
        print_json({"scenes": [vars(result) for result in results]})
        return
    for result in results:
        first, *others = result.files
        out().print(f"{escape(result.name)}: {first}")
        for path in others:
            out().print(f"  {path}")
        said = f"{result.said}; {result.windows} windows in {result.seconds:.1f} s"
        out().print(f"  {escape(said)}")
        for note in result.notes:
            say(f"note: {note}")
