"""`geotune embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress
from geotune.cli.shared_options import Device, ModelFiles, SceneFiles, require_scenes
from geotune.utils.precision import PredictionPrecision


def embed(
    source: str,
    *scenes: str,
    out_dir: Annotated[Path, Parameter(name="--out")],
    layer: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-1",
    pca: str | None = None,
    int8: Annotated[bool, Parameter(negative="")] = False,
    pooled: Annotated[bool, Parameter(negative="")] = False,
    maps: bool = True,
    window: int | None = None,
    overlap: float | None = None,
    batch_size: int = 8,
    precision: PredictionPrecision = "32-true",
    files: SceneFiles = SceneFiles(),
    model: ModelFiles = ModelFiles(),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the features of scenes: of a run's encoder, or of a recipe's frozen backbone.

    Maps have a pixel for each cell of the layer and a band for each dimension, as Cloud-Optimized
    GeoTIFF (SCENE_features.tif); --pooled adds a table with the mean features of each window
    (features.parquet).

    Parameters
    ----------
    source
        A run folder, a folder with adapter.json and adapter.safetensors, hub:ORG/NAME[@REVISION],
        or a recipe: its backbone as pretrained, normalised as in a training.
    scenes
        GeoTIFFs or patterns; {band} for one file per band, {date} for one file per date. For
        several modalities one pattern each: S2L2A=s2/*.tif S1GRD=s1/*.tif.
    out_dir
        Output folder.
    layer
        Number or name of a block of the backbone; of a side network, of its output maps. Negative
        numbers count from the end.
    pca
        Number of principal components to write instead of the dimensions, computed from these
        scenes; or a map with components, to apply them again.
    int8
        Write 8-bit integers, with a scale and an offset of each band.
    pooled
        Also write a table of windows, with their outlines and mean features.
    maps
        Write the maps.
    window
        Window side in pixels; by default as in training. Rounded up to whole patches.
    overlap
        Share of a window that its neighbour covers too; by default 0.5, and 0 with --no-maps.
    batch_size
        Windows at once.
    precision
        As for geotune predict.
    device
        Compute device.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    require_scenes("embed", scenes)
    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.embedding import embed as embed_scenes
        result = embed_scenes(
            source,
            scenes,
            out_dir,
            layer=layer,
            pca=pca,
            int8=int8,
            pooled=pooled,
            maps=maps,
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            precision=precision,
            **vars(model),
            **vars(files),
            device=device,
            on_message=message,
            on_progress=on_progress,
        )
    if as_json:
        scenes_json = [vars(scene) for scene in result.scenes]
        print_json({**vars(result), "scenes": scenes_json})
        return
    for note in result.notes:
        message(f"note: {note}")
    out().print(
        escape(
            f"layer {result.layer}: {result.dimensions} dimensions, "
            f"a cell of {result.stride:g} pixels"
        )
    )
    for scene in result.scenes:
        title = scene.features_path or "no map"
        out().print(f"{escape(f'{scene.name}: {title}')}")
        line = f"{scene.summary}; {scene.windows} windows in {scene.seconds:.1f} s"
        out().print(f"  {escape(line)}")
        for note in scene.notes:
            message(f"note: {note}")
    if result.table_path is not None:
        out().print(escape(f"windows: {result.table_path}"))
