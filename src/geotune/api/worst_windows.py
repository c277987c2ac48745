"""The windows with the worst scores as a GeoPackage, to look at and to correct labels."""

from __future__ import annotations

import numpy as np
import shapely
from rasterio.crs import CRS

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.source import apply_affine
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.data.window_datasets import GridWindowDataset
from geotune.inference.geopackage import write_features
from geotune.inference.geotiff import atomic_output
from geotune.inference.qgis import outline_style, write_style
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics

MAX_WINDOWS = 100
LAYER = "windows"
_RED = (213, 0, 0)


def write_worst_windows(
    folder: RunDir, split: str, dataset: GridWindowDataset, windows: WindowMetrics
) -> int:
    """Write `worst_<split>.gpkg` to a run folder, with a QGIS style; returns how many windows.

    Fields: `rank` (1 is the worst), `score` (`Task.score`), `scene`, `row` and `col` of the first
    pixel, `image` and `labels` (the files). Coordinates are those of the scenes, or longitude and
    latitude if they differ; without georeference they are pixels. Windows without labels, and of
    several scenes those without a CRS that the others have, are left out.
    """
    systems = {scene.raster.crs.to_wkt() if scene.raster.crs else "" for scene in dataset.scenes}
    known = systems - {""}
    crs = None if not known else CRS.from_wkt(known.pop()) if len(known) == 1 else WGS84
    placed = [scene for scene in dataset.scenes if scene.raster.crs or crs is None]
    usable = {scene.name for scene in placed}
    order = [
        int(i)
        for i in np.argsort(windows.scores, kind="stable")
        if not np.isnan(windows.scores[i]) and windows.scenes[i] in usable
    ][:MAX_WINDOWS]
    chosen = [dataset.scenes[dataset.windows[i].scene] for i in order]
    outlines = [
        _outline(scene, dataset.windows[i], dataset.window, crs)
        for i, scene in zip(order, chosen, strict=True)
    ]
    name = f"worst_{split}"
    with atomic_output(folder.path) as staging:
        write_features(
            staging / f"{name}.gpkg",
            LAYER,
            np.array(outlines, dtype=object),
            {
                "rank": np.arange(1, len(order) + 1),
                "score": windows.scores[order].round(4),
                "scene": np.array([scene.name for scene in chosen], dtype=object),
                "row": windows.positions[order, 0],
                "col": windows.positions[order, 1],
                "image": np.array([str(s.raster.path) for s in chosen], dtype=object),
                "labels": np.array([str(s.labels.path) for s in chosen], dtype=object),
            },
            geometry_type="Polygon",
            crs=crs,
            append=False,
        )
        write_style(staging / f"{name}.qml", outline_style(_RED), "Polygon")
    return len(order)


def _outline(
    scene: Scene, index: tuple[int, int, int], side: int, crs: CRS | None
) -> shapely.Polygon:
    """The part of a window that lies in its scene, in `crs`."""
    _, row, col = index
    height, width = min(side, scene.shape[0] - row), min(side, scene.shape[1] - col)
    area = scene.raster.to_grid(Window(row, col, height, width))
    columns = area.col + np.array([0.0, width, width, 0])
    rows = area.row + np.array([0.0, 0, height, height])
    xs, ys = apply_affine(scene.raster.transform, columns, rows)
    if crs is not None and scene.raster.crs is not None and scene.raster.crs != crs:
        xs, ys = transformer(scene.raster.crs, crs).transform(xs, ys)
    return shapely.Polygon(np.stack([xs, ys], axis=1))
