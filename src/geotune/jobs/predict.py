"""`geotune predict`: map scenes with a run or an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.card import read_card
from geotune.data.acquisition import require_metadata
from geotune.data.scenes import open_rasters
from geotune.recipe import read_recipe
from geotune.training.folder import RunFolder

if TYPE_CHECKING:
    from geotune.inference.predict import PredictedScene


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
    weights: Path | None = None,
    backbone: str | None = None,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    device: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> list[PredictedScene]:
    """Map scenes with a finished run, or with a folder that holds only an adapter.

    `bands` and `nodata` say what the scenes' files do not; by default as the run's recipe does.
    `backbone` names a Python file of the user's, as in `load_adapter`.
    Raises `GeotuneError` before anything is written where a scene does not fit.
    """
    card = read_card(run)
    folder = RunFolder(run)
    if folder.recipe.is_file():
        data = read_recipe(folder.recipe)[0].data
        bands, nodata = bands or data.bands, data.nodata if nodata is None else nodata
        window = window or data.window
    sources = open_rasters(
        list(scenes), bands=bands, wanted_bands=card.normalization.bands, nodata=nodata
    )
    require_metadata(sources, card.metadata)
    from geotune.build.model import load_adapter
    from geotune.inference.predict import predict_scene
    from geotune.jobs.machine import pick_device

    place = pick_device(device)
    built = load_adapter(run, weights, backbone=backbone)
    results = []
    for name, source in sources.items():

        def told(done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(name, done, total)

        results.append(
            predict_scene(
                built.model,
                source,
                out,
                bands=built.normalization.bands,
                classes=built.task.classes,
                name=name,
                window=window or 256,
                overlap=overlap,
                batch_size=batch_size,
                device=place,
                probabilities=probabilities,
                polygons=polygons,
                metadata=built.backbone.metadata,
                progress=told,
            )
        )
    return results
