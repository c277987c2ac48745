"""Vector labels in the files that people bring: formats, archives, collections, labelme."""

from __future__ import annotations

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import shapely.affinity
from rasterio.features import rasterize
from rasterio.transform import from_origin

from geotune.boxes.oriented import hull
from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.labels.density_labels import open_density_labels
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_scenes
from helpers.errors import raises

SHAPE = (30, 40)
SHIP = shapely.Polygon([(3.2, 4.1), (20.7, 6.3), (18.2, 22.9), (5.1, 15.4)])
CLASSES = ["background", "ship"]


@pytest.fixture
def scene(write_raster: Any) -> RasterSource:
    return open_raster(write_raster("a.tif", np.ones((1, *SHAPE), dtype="uint8")))


def _drawn(shape: Any) -> Any:
    return rasterize([(shape, 1)], out_shape=SHAPE)


def _mask(path: Path, scene: RasterSource) -> Any:
    labels = open_labels(path, scene, classes=CLASSES)
    return labels.read(Window(0, 0, *SHAPE)).mask  # type: ignore[attr-defined]  # a mask


def _boxes(path: Path, classes: list[str], **options: Any) -> Any:
    [opened] = open_annotated_scenes(
        scenes=str(path.parent / "a.tif"),
        labels=str(path),
        classes=classes,
        options=AnnotationOptions(**options),
    )
    return opened.labels.boxes  # type: ignore[attr-defined]  # objects


def _frame(scene: RasterSource, *shapes: Any) -> geopandas.GeoDataFrame:
    placed = [shapely.affinity.affine_transform(s, scene.transform.to_shapely()) for s in shapes]
    names = ["ship"] * len(shapes)
    return geopandas.GeoDataFrame({"class": names}, geometry=placed, crs=scene.crs.to_wkt())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("l.gdb", "OpenFileGDB"),
        ("l.geojsonl", "GeoJSONSeq"),
        ("l.geoparquet", None),
        ("l.zip", "ESRI Shapefile"),
        ("l.zip", "GPKG"),
        ("l.zip", "OpenFileGDB"),
    ],
)
def test_formats_and_archives(
    scene: RasterSource, tmp_path: Path, name: str, driver: str | None
) -> None:
    path, frame = tmp_path / name, _frame(scene, SHIP)
    if driver is None:
        frame.to_parquet(path)
    elif path.suffix != ".zip":
        frame.to_file(path, driver=driver)
    else:
        inner = tmp_path / "inner" / "data [1]"
        inner.mkdir(parents=True)
        suffix = {"ESRI Shapefile": "shp", "GPKG": "gpkg", "OpenFileGDB": "gdb"}[driver]
        frame.to_file(inner / f"l.{suffix}", driver=driver)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(inner.rglob("*")):
                archive.write(file, file.relative_to(inner.parent))
            archive.writestr("__MACOSX/data [1]/._l.shp", b"")
    expected = _drawn(SHIP)
    assert (_mask(path, scene) != expected).sum() <= 2  # GeoJSONSeq is in degrees
    assert _boxes(path, ["ship"])[0] == pytest.approx(SHIP.bounds, abs=0.01)
    scenes = open_scenes(
        lambda file, raster, by_pixel=False: open_labels(file, raster, classes=CLASSES),
        scenes=str(tmp_path / "a.tif"),
        labels=str(path),
    )
    assert scenes[0].labels.overlaps


def test_archives_of_several_files_are_rejected(scene: RasterSource, tmp_path: Path) -> None:
    path = tmp_path / "l.zip"
    for names, mentions in ((["a.shp", "b.gpkg"], ["a.shp", "b.gpkg"]), (["x.txt"], ["no vector"])):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        with raises("file-unreadable", file=path, mentions=mentions):
            _mask(path, scene)
    path.write_bytes(b"PK\x03\x04")
    with raises("file-unreadable", file=path):
        _mask(path, scene)


def test_geometry_collections_are_alike_in_all_tasks(scene: RasterSource, tmp_path: Path) -> None:
    """Their members of the highest dimension count."""
    other = shapely.box(25, 3, 31, 9)
    line = shapely.LineString([(0, 0), (39, 29)])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([other, line]), SHIP])
    path = tmp_path / "l.gpkg"
    for collection, expected in (
        (shapely.GeometryCollection([SHIP, line, shapely.Point(1, 1)]), SHIP),
        (nested, shapely.union(SHIP, other)),
    ):
        _frame(scene, collection).to_file(path)
        assert (_mask(path, scene) == _drawn(expected)).all()
        assert _boxes(path, ["ship"])[0] == pytest.approx(expected.bounds)
        with raises("geometry-type", file=path):
            open_density_labels(path, scene, objects="ship")
    points = [shapely.Point(3, 4), shapely.Point(9, 9)]
    _frame(scene, *(shapely.GeometryCollection([point]) for point in points)).to_file(path)
    assert len(open_density_labels(path, scene, objects="ship").points) == 2
    assert len(_boxes(path, ["ship"], point_size="2 px")) == 2
    with raises("geometry-type", file=path):
        _mask(path, scene)
    _frame(scene, shapely.GeometryCollection([line])).to_file(path)
    for read in (lambda: _mask(path, scene), lambda: _boxes(path, ["ship"])):
        with raises("geometry-type", file=path):
            read()


def _labelme(*shapes: dict[str, Any], size: tuple[int, int] = SHAPE) -> str:
    sides = {"imageHeight": size[0], "imageWidth": size[1]}
    return json.dumps({"version": "5.0", "imagePath": "a.tif", **sides, "shapes": list(shapes)})


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_labelme_files_are_read_in_pixels(
    tmp_path: Path, write_raster: Any, crs: str | None
) -> None:
    scene = open_raster(write_raster("a.tif", np.ones((1, *SHAPE), dtype="uint8"), crs=crs))
    path = tmp_path / "l.json"
    outline = [[*corner] for corner in SHIP.exterior.coords[:-1]]
    ship = {"label": "ship", "points": outline, "shape_type": "polygon"}
    box = {"label": "ship", "points": [[31, 9], [25, 3]], "shape_type": "rectangle"}
    circle = {"label": "ship", "points": [[30, 20], [30, 24]], "shape_type": "circle"}
    path.write_text(_labelme(ship, box, circle))
    disc = shapely.Point(30, 20).buffer(4)
    expected = shapely.union_all([SHIP, shapely.box(25, 3, 31, 9), disc])
    assert (_mask(path, scene) == _drawn(expected)).all()
    boxes = _boxes(path, ["ship"])
    assert boxes == pytest.approx(np.array([SHIP.bounds, (25, 3, 31, 9), disc.bounds]))
    oriented = _boxes(path, ["ship"], oriented=True)
    assert hull(oriented)[1] == pytest.approx([25, 3, 31, 9])
    path.write_text(_labelme({"label": "ship", "points": [[3, 4]], "shape_type": "point"}))
    assert open_density_labels(path, scene, objects="x").points.tolist() == [[3, 4]]
    path.write_text(_labelme())
    assert (_mask(path, scene) == 0).all() and not len(_boxes(path, ["ship"]))


def test_invalid_labelme_files_are_rejected(scene: RasterSource, tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    ship = {"label": "ship", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
    for text, code, mentions in (
        (_labelme(ship, size=(9, 9)), "image-size", ["9x9", "30x40"]),
        (_labelme({**ship, "points": [[1, 1]]}), "row-invalid", ["shape 1", "polygon of 1 points"]),
        (_labelme({**ship, "shape_type": "linestrip"}), "row-invalid", ["shape 1", "linestrip"]),
        (_labelme({**ship, "points": [[1, "x"]] * 3}), "row-invalid", ["shape 1"]),
        (_labelme({**ship, "points": [[1]] * 3}), "row-invalid", ["shape 1"]),
        (_labelme({**ship, "label": "boat"}), "class-unknown", ["boat"]),
        (
            json.dumps({"a.jpg1": {"filename": "a.jpg", "regions": []}}),
            "label-format-unknown",
            ["VIA"],
        ),
        (json.dumps({"_via_img_metadata": {}}), "label-format-unknown", ["VIA"]),
        (json.dumps({"shapes": 3, "imagePath": "a"}), "file-unreadable", []),
    ):
        path.write_text(text)
        for read in (lambda: _mask(path, scene), lambda: _boxes(path, ["ship"])):
            with raises(code, file=path, mentions=mentions):
                read()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_a_missing_class_is_named_as_such_and_may_be_mapped(
    write_raster: Any, tmp_path: Path, suffix: str
) -> None:
    """In segmentation and detection, also with a single class of objects."""
    image = write_raster("a.tif", np.ones((1, 20, 20), dtype="uint8"))
    shapes = [shapely.box(500_010 + 60 * i, 4_999_900, 500_050 + 60 * i, 4_999_950) for i in (0, 1)]
    frame = geopandas.GeoDataFrame({"class": ["ship", None]}, geometry=shapes, crs="EPSG:32633")
    path = tmp_path / f"l{suffix}"
    (frame.to_parquet if suffix == ".parquet" else frame.to_file)(path)
    scene = open_raster(image)
    names = ["background", "ship"]
    with raises("class-unknown", file=path, mentions="(no value) (1 features)"):
        open_labels(path, scene, classes=names)
    values = {"background": 0, "ship": ["ship", ""]}
    labels = open_labels(path, scene, classes=names, class_values=values)
    assert labels.read(Window(0, 0, 20, 20)).mask.sum() == 2 * 4 * 5  # type: ignore[attr-defined]
    objects: Any = partial(
        open_annotated_scenes, scenes=str(image), labels=str(path), options=AnnotationOptions()
    )
    for classes in (["ship"], ["crane", "ship"]):
        with raises("class-unknown", file=path, mentions="(no value) (1 annotations)"):
            objects(classes=classes)
    [found] = objects(classes=["ship"], class_values={"ship": ["ship", ""]})
    assert found.labels.indices.tolist() == [0, 0]


@pytest.mark.parametrize("unit", ["metre", "foot"])
@pytest.mark.parametrize("name", ["mine", "site"])
def test_labels_in_the_local_crs_of_their_scene(
    write_raster: Any, tmp_path: Path, name: str, unit: str
) -> None:
    """The GeoTIFF keeps name and unit of an engineering CRS, the GeoPackage its datum and axes."""
    local = (
        'ENGCRS["{}",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["{}",{}]]'
    )
    values = np.ones((1, *SHAPE), dtype="uint8")
    transform = from_origin(100, 200, 0.5, 0.5)
    metres = local.format("mine", "metre", 1)
    scene = open_raster(write_raster("a.tif", values, crs=metres, transform=transform))
    placed = shapely.affinity.affine_transform(SHIP, scene.transform.to_shapely())
    crs = local.format(name, unit, 1 if unit == "metre" else 0.3048)
    frame = geopandas.GeoDataFrame({"class": ["ship"]}, geometry=[placed], crs=crs)
    frame.to_file(path := tmp_path / "l.gpkg")
    if (name, unit) == ("mine", "metre"):
        assert (_mask(path, scene) == _drawn(SHIP)).all()
        assert _boxes(path, ["ship"])[0] == pytest.approx(SHIP.bounds)
    else:
        with raises("crs-incompatible", file=path):
            open_labels(path, scene, classes=CLASSES)
