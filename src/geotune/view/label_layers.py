"""The labels of a scene, whatever file they come from, as a layer or as facts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely

from geotune.boxes.oriented import as_oriented, centres
from geotune.boxes.polygons import to_polygons
from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.labels.targets import (
    ImageClass,
    ImageClasses,
    ImageValue,
    ObjectDensity,
    PixelClasses,
    PixelValues,
)
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.report import number_format as fmt
from geotune.types import IGNORE
from geotune.view.features import collection
from geotune.view.image_layer import value_limits
from geotune.view.layers import MAX_READ_STEP, FeatureLayer, RasterLayer
from geotune.view.map_grid import MapGrid
from geotune.view.styles import ClassStyle, Row, Values, ValueStyle

_SAMPLES = 4
"""Numbers are sampled in this many windows per side of a scene, for their range."""


def label_layer(scene: Scene, *, points: bool) -> RasterLayer | FeatureLayer | None:
    """The labels as a layer; None for labels of whole images.

    Args:
        scene: an image with labels.
        points: objects are points.

    Raises `GeotuneError` if they cannot be read.
    """
    target = scene.read_labels(Window(0, 0, 1, 1))
    classes = tuple(scene.labels.classes)
    if isinstance(target, PixelClasses):
        return RasterLayer(
            "labels", "labels", _reader(scene), ClassStyle(classes), max_step=MAX_READ_STEP
        )
    if isinstance(target, ObjectDensity):
        return FeatureLayer("labels", "labels", lambda grid: _dots(scene, grid), classes, "point")
    if isinstance(target, PixelValues):
        style = ValueStyle(classes[0] if classes else "value", *value_limits(_sample(scene)))
        return RasterLayer("labels", "labels", _reader(scene), style, max_step=MAX_READ_STEP)
    if isinstance(target, ObjectTarget):
        geometry: Any = "point" if points else "polygon"
        return FeatureLayer(
            "labels", "labels", lambda grid: _objects(scene, grid, points), classes, geometry
        )
    return None


def label_facts(scene: Scene) -> list[Row]:
    """The label of a whole image; empty for other labels."""
    if not scene.labels.image_level:
        return []
    target = scene.read_labels(Window(0, 0, *scene.shape))
    classes = scene.labels.classes
    if isinstance(target, ImageClass):
        return [("label", classes[target.index])]
    if isinstance(target, ImageClasses):
        present = [name for name, yes in zip(classes, target.present, strict=True) if yes]
        return [("labels", ", ".join(present) or "none")]
    if isinstance(target, ImageValue):
        return [("label", fmt.number(target.value))]
    return []


def _reader(scene: Scene) -> Any:
    """Reads classes or numbers per pixel; labels have no overviews, so every pixel is read."""

    def read(window: Window, step: int) -> Values:
        target: Any = scene.read_labels(window)
        if isinstance(target, PixelClasses):
            mask = target.mask[::step, ::step]
            return np.where(mask == IGNORE, np.float32(np.nan), mask.astype(np.float32))[None]
        values: Values = target.values[None, ::step, ::step]
        return values

    return read


def _sample(scene: Scene) -> Values:
    """Numbers from windows all over the scene."""
    height, width = scene.shape
    side = min(256, height, width)
    rows, cols = (
        np.linspace(0, size - side, min(_SAMPLES, math.ceil(size / side))).astype(int).tolist()
        for size in (height, width)
    )
    read = _reader(scene)
    parts = [read(Window(row, col, side, side), 1).ravel() for row in rows for col in cols]
    return np.concatenate(parts)


def _objects(scene: Scene, grid: MapGrid, points: bool) -> dict[str, Any]:
    target: Any = scene.read_labels(Window(0, 0, *scene.shape))
    shapes = (
        shapely.points(centres(target.boxes)) if points else to_polygons(as_oriented(target.boxes))
    )
    names = np.array(scene.labels.classes, dtype=object)[target.classes]
    return collection(_place(np.asarray(shapes), grid), {"class": names})


def _dots(scene: Scene, grid: MapGrid) -> dict[str, Any]:
    """The objects of a density, at the centres of their pixels."""
    target: Any = scene.read_labels(Window(0, 0, *scene.shape))
    rows, cols = np.nonzero(target.counts)
    shapes = shapely.points(cols + 0.5, rows + 0.5)
    names = np.full(len(rows), scene.labels.classes[0], dtype=object)
    return collection(_place(np.asarray(shapes), grid), {"class": names})


def _place(shapes: Any, grid: MapGrid) -> Any:
    """Shapes in pixels of the scene, in degrees."""
    return shapely.transform(shapes, lambda xy: grid.lonlat(xy[:, 0], xy[:, 1]).T)
