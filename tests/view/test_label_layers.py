"""Labels of every kind on the map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.labels.targets import ImageClass, ImageValue, ObjectDensity, PixelValues
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.view.label_layers import label_facts, label_layer
from geotune.view.layers import FeatureLayer, RasterLayer
from geotune.view.map_grid import MapGrid
from helpers.inference_scenes import write_scene

SIDE = 40


@dataclass
class FakeLabels:
    """Labels that answer every window with `make(window)`."""

    make: Any
    classes: tuple[str, ...] = ("ship", "crane")
    image_level: bool = False

    def read(self, window: Window) -> Any:
        return self.make(window)


@pytest.fixture
def scene_with(tmp_path: Path) -> Any:
    image = np.ones((1, SIDE, SIDE), np.float32)
    raster = write_scene(tmp_path / "a.tif", image, bands=("red",))

    def make(make_target: Any, **options: Any) -> Scene:
        labels: Any = FakeLabels(make_target, **options)
        return Scene("a", raster, labels, group="a")

    return make


def objects(window: Window) -> ObjectTarget:
    return ObjectTarget(
        boxes=np.array([[10.0, 10, 20, 14], [30.0, 20, 34, 36]]),
        classes=np.array([0, 1]),
        difficult=np.zeros(2, np.bool_),
        visible_fraction=np.ones(2),
        min_visibility=0.5,
        valid=np.ones((window.height, window.width), np.bool_),
    )


@pytest.mark.parametrize("points", [False, True])
def test_objects_become_shapes_in_their_place(scene_with: Any, points: bool) -> None:
    scene = scene_with(objects)
    layer = label_layer(scene, points=points)
    assert isinstance(layer, FeatureLayer)
    grid = MapGrid.of(scene.raster)
    shapes = layer.features(grid)["features"]
    assert [shape["properties"]["class"] for shape in shapes] == ["ship", "crane"]
    if points:
        expected = grid.lonlat(np.array([15.0]), np.array([12.0]))[:, 0]
        assert shapes[0]["geometry"]["coordinates"] == pytest.approx(expected, abs=1e-6)
    else:
        outline = np.array(shapes[0]["geometry"]["coordinates"][0])
        corners = grid.lonlat(np.array([10.0, 20]), np.array([10.0, 14]))
        assert outline[:, 0].min() == pytest.approx(corners[0].min(), abs=1e-5)
        assert outline[:, 1].max() == pytest.approx(corners[1].max(), abs=1e-5)


def test_a_density_shows_its_objects(scene_with: Any) -> None:
    def density(window: Window) -> ObjectDensity:
        counts = np.zeros((window.height, window.width), np.int64)
        if window.height > 1:
            counts[5, 7] = 1
        return ObjectDensity(counts.astype(np.float32), counts)

    scene = scene_with(density, classes=("tree",))
    layer = label_layer(scene, points=False)
    assert isinstance(layer, FeatureLayer) and layer.geometry == "point"
    grid = MapGrid.of(scene.raster)
    (shape,) = layer.features(grid)["features"]
    assert shape["geometry"]["coordinates"] == pytest.approx(
        grid.lonlat(np.array([7.5]), np.array([5.5]))[:, 0], abs=1e-6
    )


def test_numbers_get_a_range(scene_with: Any) -> None:
    def heights(window: Window) -> PixelValues:
        cols = np.arange(window.col, window.col + window.width, dtype=np.float32)
        return PixelValues(np.tile(cols, (window.height, 1)))

    scene = scene_with(heights, classes=("height",))
    layer = label_layer(scene, points=False)
    assert isinstance(layer, RasterLayer)
    assert layer.style.legend["low"] == "0" and layer.style.legend["high"] == "39"
    assert layer.read(Window(0, 8, 8, 8), 4).tolist() == [[[8.0, 12.0], [8.0, 12.0]]]


def test_labels_of_whole_images_become_facts(scene_with: Any) -> None:
    scene = scene_with(lambda window: ImageClass(1), image_level=True)
    assert label_layer(scene, points=False) is None
    assert label_facts(scene) == [("label", "crane")]
    scene = scene_with(lambda window: ImageValue(2.5), image_level=True)
    assert label_facts(scene) == [("label", "2.5")]
