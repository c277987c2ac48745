"""Predictions as GeoParquet and COCO read back as the objects that were predicted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray
from shapely import Polygon
from torch import Tensor

from geotune.boxes.structures import Detections
from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference import further_formats
from geotune.inference.coco_writer import CocoWriter, without_holes
from geotune.inference.detection import detect_scene
from geotune.inference.further_formats import FeatureFormat, FurtherFormats
from geotune.inference.polygon_writer import write_polygons
from geotune.inference.polygonize import Region
from geotune.inference.sliding_window import WindowOptions
from helpers.errors import raises
from helpers.inference_scenes import write_scene

CLASSES = ["ship", "crane"]
BOXES: dict[str, list[list[float]]] = {
    "horizontal": [[4, 6, 10, 12], [20.5, 1.25, 30, 30]],
    "oriented": [[14, 14, 12, 4, 0.4], [20, 18, 9, 5, -1.2]],
    "points": [[2.5, 4, 6.5, 8], [18.25, 20, 22.25, 24]],  # their centres are written
}
BOTH: tuple[FeatureFormat, ...] = ("parquet", "coco")
Kind = Literal["horizontal", "oriented", "points"]


def predict(folder: Path, kind: Kind, *, crs: str | None = "EPSG:32633") -> RasterSource:
    """Predict `BOXES` in the scenes `a` and `b`; in `b` only the first one."""
    for name, count in (("a", 2), ("b", 1)):
        image = np.ones((2, 32, 32), np.float32)
        source = write_scene(folder / f"{name}.tif", image, crs=crs)
        boxes = torch.tensor(BOXES[kind][:count])

        def model(images: Tensor, boxes: Tensor = boxes) -> list[Detections]:
            classes = torch.arange(len(boxes))
            return [Detections(boxes, 0.75 - 0.25 * classes, classes) for _ in images]

        detect_scene(
            model,
            source,
            folder / "out",
            WindowOptions(bands=["red"], window=32),
            classes=CLASSES,
            scores=dict.fromkeys(CLASSES, 0.1),
            nms_threshold=0.5,
            points=kind == "points",
            name=name,
        )
    return source


def export(folder: Path, kind: Kind, formats: tuple[FeatureFormat, ...] = BOTH) -> list[Path]:
    files: list[Path] = []
    with FurtherFormats(formats, folder / "out", "objects", CLASSES, kind) as further:
        for name in "ab":
            package = folder / "out" / f"{name}_objects.gpkg"
            files += further.add(package, open_raster(folder / f"{name}.tif"), name)
    return list(dict.fromkeys(files))


def read_back(folder: Path, kind: Kind) -> list[Any]:
    """The targets of both scenes, read by geotune's own reader of COCO."""
    scenes = open_annotated_scenes(
        scenes=str(folder / "*.tif"),
        labels=str(folder / "out/objects.coco.json"),
        classes=CLASSES,
        options=AnnotationOptions(oriented=kind == "oriented", point_size="4 px"),
    )
    return [scene.labels.read(Window(0, 0, 32, 32)) for scene in scenes]


@pytest.mark.parametrize("kind", ["horizontal", "oriented", "points"])
def test_coco_reads_back_as_the_same_objects(tmp_path: Path, kind: Kind) -> None:
    predict(tmp_path, kind)
    assert tmp_path / "out/objects.coco.json" in export(tmp_path, kind)
    first, second = read_back(tmp_path, kind)
    expected = np.array(BOXES[kind])
    assert first.boxes == pytest.approx(expected, abs=1e-3)
    assert second.boxes == pytest.approx(expected[:1], abs=1e-3)
    assert first.classes.tolist() == [0, 1]
    values = json.loads((tmp_path / "out/objects.coco.json").read_text())
    assert [image["file_name"] for image in values["images"]] == ["a.tif", "b.tif"]
    assert [category["name"] for category in values["categories"]] == CLASSES
    assert [item["score"] for item in values["annotations"]] == [0.75, 0.5, 0.75]
    assert [item["id"] for item in values["annotations"]] == [1, 2, 3]


def test_coco_has_the_rotation_about_the_centre_in_degrees(tmp_path: Path) -> None:
    predict(tmp_path, "oriented")
    export(tmp_path, "oriented", ("coco",))
    path = tmp_path / "out/objects.coco.json"
    values = json.loads(path.read_text())
    item = values["annotations"][1]
    assert item["bbox"] == pytest.approx([20 - 4.5, 18 - 2.5, 9, 5])
    assert item["attributes"]["rotation"] == pytest.approx(360 - np.rad2deg(1.2), abs=1e-4)
    assert item["area"] == pytest.approx(45)
    for item in values["annotations"]:  # as CVAT exports them, the rotation alone
        item["segmentation"] = []
    path.write_text(json.dumps(values))
    expected = np.array(BOXES["oriented"])
    assert read_back(tmp_path, "oriented")[0].boxes == pytest.approx(expected, abs=1e-3)
    hulls = read_back(tmp_path, "horizontal")[0].boxes
    shapes = [shapely.box(*hull) for hull in hulls]
    assert [shape.area for shape in shapes] == pytest.approx(
        [
            (w * np.cos(a) + h * abs(np.sin(a))) * (w * abs(np.sin(a)) + h * np.cos(a))
            for _, _, w, h, a in BOXES["oriented"]
        ],
        abs=1e-2,
    )


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
@pytest.mark.parametrize("kind", ["oriented", "points"])
def test_geoparquet_has_the_features_and_crs_of_the_geopackage(
    tmp_path: Path, kind: Kind, crs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(further_formats, "_BATCH", 1)
    predict(tmp_path, kind, crs=crs)
    assert export(tmp_path, kind, ("parquet",)) == [
        tmp_path / f"out/{name}_objects.parquet" for name in "ab"
    ]
    table = geopandas.read_parquet(tmp_path / "out/a_objects.parquet")
    expected = geopandas.read_file(tmp_path / "out/a_objects.gpkg")
    assert table.crs == (None if crs is None else crs)
    assert table.geometry.geom_equals_exact(expected.geometry, 0).all()
    assert table["class"].tolist() == CLASSES and table["score"].tolist() == [0.75, 0.5]


def test_a_scene_without_objects_gives_readable_files(tmp_path: Path) -> None:
    predict(tmp_path, "horizontal")
    empty = geopandas.read_file(tmp_path / "out/b_objects.gpkg").iloc[:0]
    (tmp_path / "out/b_objects.gpkg").unlink()
    empty.to_file(tmp_path / "out/b_objects.gpkg", layer="objects")
    export(tmp_path, "horizontal")
    assert len(geopandas.read_parquet(tmp_path / "out/b_objects.parquet")) == 0
    assert json.loads((tmp_path / "out/objects.coco.json").read_text())["images"][1]["id"] == 2


def ring(left: float, top: float, side: float) -> NDArray[np.float64]:
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]])
    return square + np.array([left, top])


def test_polygons_with_holes_become_pieces_with_the_same_area(tmp_path: Path) -> None:
    polygon = Polygon(ring(2, 2, 20), [ring(4, 4, 3), ring(12, 6, 5), ring(5, 14, 4)])
    source = write_scene(tmp_path / "a.tif", np.ones((2, 32, 32), np.float32))
    package = tmp_path / "a_polygons.gpkg"
    regions = [Region(1, polygon, 0.5)]
    grid: Any = {"shape": (32, 32), "crs": source.crs, "transform": source.transform}
    write_polygons(package, regions, CLASSES, **grid)
    with FurtherFormats(["coco"], tmp_path, "polygons", CLASSES, "polygons") as further:
        further.add(package, source, "a")
    [item] = json.loads((tmp_path / "polygons.coco.json").read_text())["annotations"]
    pieces = [Polygon(np.reshape(points, (-1, 2))) for points in item["segmentation"]]
    assert shapely.union_all(pieces).equals(polygon)
    assert item["area"] == polygon.area and item["bbox"] == [2, 2, 20, 20]
    assert item["category_id"] == 2
    assert without_holes(Polygon(ring(0, 0, 1))) == [Polygon(ring(0, 0, 1))]


def test_an_error_leaves_no_incomplete_file(tmp_path: Path) -> None:
    path = tmp_path / "objects.coco.json"
    path.write_text("before")
    with (
        pytest.raises(KeyError),
        CocoWriter(path, CLASSES, oriented=False, rectangles=True, points=False) as writer,
    ):
        writer.add_image("a.tif", (32, 32))
        writer.write(np.array([shapely.box(0, 0, 1, 1)]), ["plane"], np.ones(1))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_geoparquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with raises("dependency-missing", mentions=["geotune[lists]"]):
        FurtherFormats(["parquet"], tmp_path, "objects", CLASSES, "points")
