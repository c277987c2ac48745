"""What is wrong with a label file is an error that names it, or a counted note."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from geotune.data.raster.source import RasterSource
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from helpers.annotation_files import upright, write_coco, write_dota

CLASSES = ["ship", "crane"]
Opened = Callable[..., list[Scene]]
Images = dict[str, RasterSource]
GOOD = "0 0 9 0 9 9 0 9 ship 0\n"


@pytest.fixture
def refused(tmp_path: Path, images: Images, opened: Opened) -> Callable[..., str]:
    """What is said of a file of these contents, which is the labels of image `a`."""

    def message(name: str, text: str | bytes, **options: Any) -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(GeotuneError) as caught:
            opened(name, scenes="a.tif", **options)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return message


@pytest.fixture
def noted(tmp_path: Path, images: Images, opened: Opened) -> Callable[..., tuple[str, int]]:
    """The notes on DOTA's lines beside a good one, and how many objects are left."""

    def notes(*lines: str, **options: Any) -> tuple[str, int]:
        (tmp_path / "a.txt").write_text(GOOD + "\n".join(lines))
        [scene] = opened("a.txt", scenes="a.tif", format="dota", **options)
        return "\n".join(scene.labels.notes), len(scene.labels.boxes)  # type: ignore[attr-defined]

    return notes


# ---------------------------------------------------------------- whatever the format
def test_boxes_without_an_area_are_left_out_and_counted(noted: Callable[..., Any]) -> None:
    notes, left = noted("5 5 9 5 9 5 5 5 ship 0", "5 5 5 5 5 5 5 5 ship 0")
    assert left == 1
    assert "without an area, left out: 2" in notes and "a.txt line 2" in notes and "line 3" in notes


def test_boxes_outside_the_image_are_left_out_and_counted(noted: Callable[..., Any]) -> None:
    notes, left = noted("80 5 90 5 90 9 80 9 ship 0", "75 5 90 5 90 9 75 9 ship 0")
    assert left == 2
    assert "outside their image, left out: 1" in notes and "a.txt line 2" in notes


@pytest.mark.parametrize("oriented", [False, True])
def test_crossing_outlines_become_the_box_around_them(
    noted: Callable[..., Any], oriented: bool
) -> None:
    notes, left = noted("20 20 30 30 30 20 20 30 ship 0", oriented=oriented)
    assert left == 2
    assert "cross themselves" in notes and "a.txt line 2" in notes


def test_many_places_are_counted(noted: Callable[..., Any]) -> None:
    notes, _ = noted(*["5 5 5 5 5 5 5 5 ship 0"] * 9)
    assert "left out: 9" in notes and "line 4 and 6 more" in notes


def test_other_classes_are_refused_or_left_out(
    refused: Callable[..., str], noted: Callable[..., Any]
) -> None:
    boats = "0 0 9 0 9 9 0 9 boat 0\n" * 2
    said = refused("a.txt", GOOD + boats + "0 0 9 0 9 9 0 9 Bouy 0")
    assert "'boat' (2 annotations), 'Bouy' (1 annotations), the first at line 2" in said
    assert "expected ship (0), crane (1)" in said
    notes, left = noted(*boats.splitlines(), other_classes="leave_out")
    assert left == 1 and "other classes than ship, crane, left out: 2" in notes


@pytest.mark.parametrize("number", ["nan", "inf", "-1e999"])
@pytest.mark.parametrize("oriented", [False, True])
def test_coordinates_that_are_no_numbers_are_refused(
    refused: Callable[..., str], number: str, oriented: bool
) -> None:
    said = refused("a.txt", GOOD + f"0 0 {number} 0 9 9 0 9 ship 0", oriented=oriented)
    assert "line 2: has a coordinate that is no finite number" in said


def test_images_without_a_file_are_refused_or_empty(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    write_dota(tmp_path / "b.txt", images["b"], [upright(1, 1, 5, 5)], CLASSES)
    with pytest.raises(GeotuneError, match=r"a\.txt: there is no .*scene a, nor one for c.*empty"):
        opened("{stem}.txt")
    scenes = opened("{stem}.txt", missing="empty")
    assert [len(scene.labels.boxes) for scene in scenes] == [0, 1, 0]  # type: ignore[attr-defined]
    assert "2 scenes without a file, so without object: a, c" in scenes[0].labels.notes[1]
    with pytest.raises(GeotuneError, match="there is no such label file"):
        opened("{stem}.csv", missing="empty")


def test_files_without_an_image_are_counted(tmp_path: Path, images: Images, opened: Opened) -> None:
    for name in ("a", "x", "y"):
        write_dota(tmp_path / f"{name}.txt", images["a"], [upright(1, 1, 5, 5)], CLASSES)
    [scene] = opened("{stem}.txt", scenes="a.tif")
    assert "2 without an image" in scene.labels.notes[1] and "x.txt" in scene.labels.notes[1]
    every = {f"{name}.tif": (images["a"], [upright(1, 1, 5, 5)]) for name in "axy"}
    write_coco(tmp_path / "all.json", every, CLASSES)
    [scene] = opened("all.json", scenes="a.tif")
    assert scene.labels.notes[1].endswith("2 without an image: x, y")


def test_a_scene_without_objects_is_background(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    there = {"a.tif": (images["a"], [upright(1, 1, 5, 5)]), "b.tif": (images["b"], [])}
    write_coco(tmp_path / "all.json", there, CLASSES)
    scenes = opened("all.json", scenes="[ab].tif")
    assert scenes[1].read_target().has_labels and scenes[1].labels.overlaps is None


def test_a_file_that_says_no_format_is_refused(refused: Callable[..., str]) -> None:
    assert "say it with data.format" in refused("a.lbl", "0 0 1 1")
    assert "say it with data.format" in refused("a.txt", "\n")


def test_a_file_that_is_no_text_is_refused(refused: Callable[..., str]) -> None:
    assert "no text in UTF-8 (byte 1)" in refused("a.csv", b"x\xff,y")


# ---------------------------------------------------------------- DOTA, YOLO, points
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1 1 5 1 5 5 1 ship 0", "line 2: found '1 1 5 1 5 5 1 ship', expected 8 numbers"),
        ("1 1 5 1 5 5 1 5", "line 2: has 8 words"),
        ("1 1 5 1 5 5 1 5 ship 0 7", "line 2: has 11 words"),
        ("1 1 5 1 5 5 1 5 ship maybe", "line 2: found 'maybe', expected 1 numbers"),
    ],
)
def test_lines_of_dota(refused: Callable[..., str], line: str, fault: str) -> None:
    assert fault in refused("a.txt", GOOD + line)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0 0.5 0.5 0.1", "line 2: has 4 words"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 2: has 6 words"),
        ("ship 0.5 0.5 0.1 0.1", "line 2: found class 'ship', expected its number"),
        ("0 345 20 30 10", "line 2: found 345, expected shares"),
        ("0 0.5 0.5 -0.1 0.1", "line 2: has the width -0.1"),
        ("0 0.5 0.5 x 0.1", "line 2: found '0.5 0.5 x 0.1', expected 4 numbers"),
        ("7 0.5 0.5 0.1 0.1", "holds class '7' (1 annotations), the first at line 2"),
    ],
)
def test_lines_of_yolo(refused: Callable[..., str], line: str, fault: str) -> None:
    assert fault in refused("a.txt", "0 0.5 0.5 0.1 0.1\n" + line, format="yolo")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,b\n1,2", "its first line is 'a, b', expected the columns x and y"),
        ("x,y\n1,2\n3", "line 3: has 1 values for 2 columns"),
        ("x,y\n1,two", "line 2: found '1 two', expected 2 numbers"),
        ("x,y\n1," + "9" * 200_000, "cannot be read as a CSV"),
        (",\n,\nx,y\n\n1", "line 5: has 1 values for 2 columns"),
        ("x,y\n1,nan", "line 2: has a coordinate that is no finite number"),
    ],
)
def test_lines_of_points(refused: Callable[..., str], text: str, fault: str) -> None:
    assert fault in refused("a.csv", text, classes=["tree"], point_size="4 px")


def test_points_need_a_size(
    tmp_path: Path, images: Images, opened: Opened, write_raster: Any
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(GeotuneError, match=r"a\.tif: its labels are points.*data\.point_size"):
        opened("a.csv", scenes="a.tif", classes=["tree"])
    write_raster("plain.tif", [[1, 1], [1, 1]], crs=None)
    with pytest.raises(GeotuneError, match=r"plain\.tif: does not say how large a pixel is"):
        opened("a.csv", scenes="plain.tif", classes=["tree"], point_size="2 m")


def test_points_of_several_classes_have_to_say_which(refused: Callable[..., str]) -> None:
    said = refused("a.csv", "x,y\n1,2\n", point_size="4 px")
    assert "line 2: does not say which of ship, crane it is" in said


# ---------------------------------------------------------------- COCO
def _coco(**changes: Any) -> str:
    values: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.tif", "height": 60, "width": 80}],
        "categories": [{"id": 3, "name": "ship"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5]}],
    }
    annotation = {**values["annotations"][0], **changes.pop("annotation", {})}
    return json.dumps({**values, "annotations": [annotation], **changes})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"annotation": {"bbox": [1, 2, 3]}}, "annotation 7: has the bbox [1, 2, 3]"),
        ({"annotation": {"bbox": [1, 2, "x", 3]}}, "annotation 7: found '1 2 x 3'"),
        ({"annotation": {"bbox": [1, 2, True, 3]}}, "annotation 7: found '1 2 True 3'"),
        ({"annotation": {"bbox": [1, 2, -3, 3]}}, "annotation 7: has a bbox of width -3"),
        ({"annotation": {"bbox": None}}, "annotation 7: has neither bbox nor segmentation"),
        ({"annotation": {"category_id": 4}}, "annotation 7: has the category 4, expected"),
        ({"annotation": {"category_id": [4]}}, "annotation 7: has the category [4], expected"),
        ({"annotation": {"image_id": 9}}, "annotation 7: is of image 9, which is not"),
        ({"annotation": {"bbox": [float("nan"), 1, 1, 1]}}, "annotation 7: has a coordinate"),
        ({"images": [{"id": 1, "file_name": "z.tif"}]}, "lists no image called a.tif"),
        ({"images": [{"id": 1}]}, "image 1 has no file_name"),
        ({"images": "a.tif"}, "has no list 'images'"),
        ({"images": [{"id": 1, "file_name": "a.tif", "height": 6e9, "width": 8e9}]}, "6e+09x8e+09"),
    ],
)
def test_faults_of_coco(refused: Callable[..., str], changes: Any, fault: str) -> None:
    assert fault in refused("all.json", _coco(**changes))


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([[1, 1, 5, 5]], "annotation 7: has the polygon [1, 1, 5, 5]"),
        ([[1, 1, 5, 5, 3]], "annotation 7: has the polygon"),
        ({"size": [10**6, 10**6], "counts": "0"}, "annotation 7: is of an image of 1e+06x1e+06"),
        ({"size": [60, 80], "counts": [4]}, "annotation 7: is no run-length encoded mask"),
        ({"size": [60, 80], "counts": ["x"]}, "annotation 7: is no run-length encoded mask"),
        ({"size": [60, 80], "counts": "~~"}, "annotation 7: is no run-length encoded mask"),
        ({"size": [60, 80], "counts": [10**30]}, "annotation 7: is no run-length encoded mask"),
        ({"counts": [4800]}, "annotation 7 size: found"),
    ],
)
def test_faults_of_outlines(refused: Callable[..., str], segmentation: Any, fault: str) -> None:
    text = _coco(annotation={"segmentation": segmentation})
    assert fault in refused("all.json", text, oriented=True)


def test_a_json_that_is_cut_off_is_refused(refused: Callable[..., str]) -> None:
    assert "is no whole JSON file" in refused("all.json", _coco()[:-9])
    assert "is no whole JSON file" in refused("all.json", "[" * 200_000)


def test_a_box_without_an_outline_stands_in_for_the_oriented_one(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    (tmp_path / "all.json").write_text(_coco())
    [scene] = opened("all.json", scenes="a.tif", oriented=True)
    assert "annotations without an outline" in scene.labels.notes[-1]
    [scene] = opened("all.json", scenes="a.tif")
    assert len(scene.labels.notes) == 1


def test_images_of_one_name_are_told_apart_by_their_folder(
    tmp_path: Path, write_raster: Any, opened: Opened
) -> None:
    for folder in ("one", "two"):
        write_raster(f"{folder}/a.tif", [[[1] * 80] * 60])
    images = [{"id": i, "file_name": f"{name}/a.tif"} for i, name in enumerate(("one", "two"))]
    (tmp_path / "all.json").write_text(_coco(images=images))
    [scene] = opened("all.json", scenes="two/a.tif")
    assert len(scene.labels.boxes) == 1  # type: ignore[attr-defined]
    images = [{"id": i, "file_name": "a.tif"} for i in range(2)]
    (tmp_path / "all.json").write_text(_coco(images=images))
    with pytest.raises(GeotuneError, match=r"lists 2 images called a\.tif"):
        opened("all.json", scenes="two/a.tif")


# ---------------------------------------------------------------- Pascal VOC
def _voc(box: str = "", size: str = "<size><width>80</width><height>60</height></size>") -> str:
    inside = f"<object><name>ship</name><bndbox>{box}</bndbox></object>"
    return f"<annotation>{size}{inside}</annotation>"


def _sides(*values: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, values, strict=True))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (_voc(_sides(1, 1, 5, "x")), "object 1: found '1 1 5 x', expected 4 numbers"),
        (_voc("<xmin>1</xmin>"), "object 1: found '1 None None None'"),
        (_voc(_sides(9, 1, 5, 5)), "object 1: goes from (9, 1) to (5, 5)"),
        (_voc().replace("bndbox", "box"), "object 1: has no <bndbox>"),
        (_voc(_sides(1, 1, 5, 5))[:-20], "is no whole XML file"),
        (
            _voc(_sides(1, 1, 5, 5), "<size><width>99999999</width><height>6</height></size>"),
            "<size>: is of an image of 6x1e+08 pixels",
        ),
    ],
)
def test_faults_of_voc(refused: Callable[..., str], text: str, fault: str) -> None:
    assert fault in refused("a.xml", text)


def test_an_xml_with_entities_is_refused(refused: Callable[..., str]) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + _voc(_sides(1, 1, 5, 5))
    assert "declares the entity 'a'" in refused("a.xml", bomb)
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + _voc(_sides(1, 1, 5, 5))
    assert "declares the entity 'a'" in refused("a.xml", outside)


def test_a_size_of_zero_is_one_that_is_not_known(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    size = "<size><width>0</width><height>0</height></size>"
    (tmp_path / "a.xml").write_text(_voc(_sides(1, 1, 20, 9), size))
    [scene] = opened("a.xml", scenes="a.tif")
    assert scene.labels.boxes.tolist() == [[0, 0, 20, 9]]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- vector files
def test_faults_of_vector_files(tmp_path: Path, images: Images, opened: Opened) -> None:
    def said(shapes: list[Any], crs: str | None = "EPSG:32633", **columns: Any) -> str:
        path = tmp_path / "all.gpkg"
        path.unlink(missing_ok=True)
        frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
        frame.to_file(path)
        with pytest.raises(GeotuneError) as caught:
            opened("all.gpkg", oriented=True)
        return str(caught.value)

    west, north = images["a"].transform @ (0, 0)
    there = shapely.box(west + 10, north - 100, west + 50, north - 50)
    far = shapely.box(0, 0, 10, 10)
    assert "feature 2 has a LineString, one of 1 such" in said(
        [there, shapely.LineString([(0, 0), (1, 1)])]
    )
    assert "feature 1 has no geometry" in said([None, there])
    assert "feature 1, feature 2: does not say which of ship, crane" in said([there, there])
    assert "holds class 'boat' (1 annotations)" in said([there], label=["boat"])
    assert "'difficult' holds more than numbers" in said(
        [there], label=["ship"], difficult=["maybe"]
    )
    assert "has no CRS" in said([there], crs=None, label=["ship"])
    assert "none of its labels lies in its scene" in said([far], label=["ship"])


def ships(path: Path, image: RasterSource, *rings: list[tuple[float, float]]) -> None:
    """A vector file of ships, their corners in metres east and south of an image's corner."""
    west, north = image.transform @ (0, 0)
    shapes = [shapely.Polygon([(west + east, north - south) for east, south in r]) for r in rings]
    labels = ["ship"] * len(shapes)
    geopandas.GeoDataFrame({"label": labels}, geometry=shapes, crs="EPSG:32633").to_file(path)


def square(west: float, east: float) -> list[tuple[float, float]]:
    """A ring 50 m high, 50 m below the corner."""
    return [(west, 50), (east, 50), (east, 100), (west, 100)]


CROSSED: list[tuple[float, float]] = [(0, 0), (40, 40), (40, 0), (0, 40)]


def test_what_lies_in_other_scenes_is_not_noted(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    ships(tmp_path / "all.gpkg", images["a"], square(10, 50), square(-30, -10), CROSSED)
    scene, *_ = opened("all.gpkg")
    assert len(scene.labels.boxes) == 2  # type: ignore[attr-defined]
    assert len(scene.labels.notes) == 2
    assert "cross themselves" in scene.labels.notes[1] and "feature 3" in scene.labels.notes[1]


def test_what_lies_beside_the_one_scene_of_a_file_is_noted(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    beside, far = square(-30, -10), square(-90000, -80000)
    ships(tmp_path / "a.gpkg", images["a"], square(10, 50), beside, far)
    [scene] = opened("{stem}.gpkg", scenes="a.tif")
    [note] = [n for n in scene.labels.notes if "outside" in n]  # type: ignore[attr-defined]
    assert "left out: 2 (" in note and "a.gpkg feature 2" in note and "a.gpkg feature 3" in note


CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")


def _oriented(*numbers: object) -> str:
    keys = [f"{axis}_{corner}" for corner in CORNERS for axis in "xy"]
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, numbers, strict=False))
    return _voc().replace("<bndbox></bndbox>", f"<robndbox>{sides}</robndbox>")


def test_faults_of_oriented_boxes_in_voc(refused: Callable[..., str]) -> None:
    assert "object 1: found '1 1 9 1 9 x 1 5'" in refused(
        "a.xml", _oriented(1, 1, 9, 1, 9, "x", 1, 5)
    )
    assert "expected 8 numbers" in refused("a.xml", _oriented(1, 1, 9, 1))


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ("<point>1,2</point><point>3,4</point>", "object 1: has 2 points, expected three or more"),
        ("<point>1,2</point>" * 3 + "<point>7</point>", "has 4 points, expected three or more"),
        ("<point>1,x</point>" * 3, "object 1: found '1 x 1 x 1 x', expected 6 numbers"),
    ],
)
def test_faults_of_fair1m(refused: Callable[..., str], points: str, fault: str) -> None:
    name = "<possibleresult><name>ship</name></possibleresult>"
    text = f"<annotation><object>{name}<points>{points}</points></object></annotation>"
    said = refused("a.xml", text, format="fair1m")
    assert fault in said and "a.xml" in said


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("(1,2),(3,4)", "line 2: found '(1,2),(3,4)', expected two corners and a class"),
        ("(1,x),(3,4),1", "line 2: found '1 x 3 4', expected 4 numbers"),
        ("(1,2),(3,4),ship", "expected two corners and a class"),
    ],
)
def test_faults_of_nwpu(refused: Callable[..., str], line: str, fault: str) -> None:
    assert fault in refused("a.txt", f"(1, 2), (3, 4), 1\n{line}", format="nwpu")
