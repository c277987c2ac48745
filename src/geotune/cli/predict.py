"""`geotune predict`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress
from geotune.cli.shared_options import Device, MapContent, ModelFiles, SceneFiles, require_scenes


def predict(
    run: Path,
    *scenes: str,
    out_dir: Annotated[Path, Parameter(name="--out")],
    content: MapContent = MapContent(),
    formats: Annotated[list[Literal["parquet", "coco"]] | None, Parameter(name="--format")] = None,
    stac: Annotated[bool, Parameter(negative="")] = False,
    files: SceneFiles = SceneFiles(),
    model: ModelFiles = ModelFiles(),
    device: Device = "auto",
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
    formats
        Also write objects or polygons as GeoParquet (parquet), or all scenes into one COCO JSON in
        pixels (coco), for annotation tools; repeat it for both.
    stac
        Also write a STAC item of each scene (SCENE_item.json), with links to the scene and to the
        model, whose item is card.json.
    device
        Compute device.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    require_scenes("predict", scenes)
    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.prediction import predict as predict_run
        results = predict_run(
            run,
            scenes,
            out_dir,
            **content.keywords,
            formats=formats or (),
            stac=stac,
            **vars(model),
            **vars(files),
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
    folder = escape(shlex.quote(str(out_dir)))
    out().print(f"next:\n  geotune view {folder}  [dim]# on a map in the browser[/dim]")
