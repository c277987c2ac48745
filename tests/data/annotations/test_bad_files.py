"""Problems in label files are errors that name the file, or notes with a count."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import shapely.affinity

from geotune.boxes.oriented import corners, hull
from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.scene import Scene
from helpers.annotation_files import upright, write_coco, write_dota
from helpers.errors import raises

CLASSES = ["ship", "crane"]
Opened = Callable[..., list[Scene]]
Images = dict[str, RasterSource]
GOOD = "0 0 9 0 9 9 0 9 ship 0\n"


@pytest.fixture
def rejected(tmp_path: Path, images: Images, opened: Opened) -> Callable[..., None]:
    """Checks that a file with this text, the labels of image `a`, is rejected."""

    def check(
        name: str,
        text: str | bytes,
        *mentions: object,
        code: str = "row-invalid",
        key: str | None = None,
        **options: Any,
    ) -> None:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with raises(code, key=key, file=path, mentions=[path, *mentions]):
            opened(name, scenes="a.tif", **options)

    return check


@pytest.fixture
def noted(tmp_path: Path, images: Images, opened: Opened) -> Callable[..., tuple[str, int]]:
    """The notes about lines of a DOTA file after a valid one, and the number of objects read."""

    def notes(*lines: str, **options: Any) -> tuple[str, int]:
        (tmp_path / "a.txt").write_text(GOOD + "\n".join(lines))
        [scene] = opened("a.txt", scenes="a.tif", format="dota", **options)
        return "\n".join(scene.labels.notes), len(scene.labels.boxes)  # type: ignore[attr-defined]

    return notes


# ---------------------------------------------------------------- any format
def test_boxes_without_area_are_skipped_with_a_note(noted: Callable[..., Any]) -> None:
    notes, left = noted("5 5 9 5 9 5 5 5 ship 0", "5 5 5 5 5 5 5 5 ship 0")
    assert left == 1
    assert "without an area, skipped: 2" in notes and "a.txt line 2" in notes and "line 3" in notes


def test_boxes_outside_the_image_are_skipped_with_a_note(noted: Callable[..., Any]) -> None:
    notes, left = noted("80 5 90 5 90 9 80 9 ship 0", "75 5 90 5 90 9 75 9 ship 0")
    assert left == 2
    assert "outside their image, skipped: 1" in notes and "a.txt line 2" in notes


@pytest.mark.parametrize("oriented", [False, True])
def test_self_intersecting_outlines_become_the_box_around_them(
    noted: Callable[..., Any], oriented: bool
) -> None:
    notes, left = noted("20 20 30 30 30 20 20 30 ship 0", oriented=oriented)
    assert left == 2
    assert "self-intersecting" in notes and "a.txt line 2" in notes


def test_notes_list_only_the_first_locations(noted: Callable[..., Any]) -> None:
    notes, _ = noted(*["5 5 5 5 5 5 5 5 ship 0"] * 9)
    assert "skipped: 9" in notes and "line 4 and 6 more" in notes


def test_other_classes_are_rejected_or_skipped(
    rejected: Callable[..., None], noted: Callable[..., Any]
) -> None:
    boats = "0 0 9 0 9 9 0 9 boat 0\n" * 2
    rejected(
        "a.txt",
        GOOD + boats + "0 0 9 0 9 9 0 9 Bouy 0",
        "'boat' (2 annotations), 'Bouy' (1 annotations)",
        "line 2",
        "ship (0), crane (1)",
        code="class-unknown",
        key="data.other_classes",
    )
    notes, left = noted(*boats.splitlines(), other_classes="leave_out")
    assert left == 1 and "classes other than ship, crane, skipped: 2" in notes


@pytest.mark.parametrize("number", ["nan", "inf", "-1e999"])
@pytest.mark.parametrize("oriented", [False, True])
def test_coordinates_that_are_not_finite_are_rejected(
    rejected: Callable[..., None], number: str, oriented: bool
) -> None:
    rejected("a.txt", GOOD + f"0 0 {number} 0 9 9 0 9 ship 0", "line 2", oriented=oriented)


def test_missing_label_files_are_rejected_or_mean_no_objects(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    write_dota(tmp_path / "b.txt", images["b"], [upright(1, 1, 5, 5)], CLASSES)
    path = tmp_path / "a.txt"
    mentions = ["scene a", "c", "data.missing_labels: empty"]
    with raises("labels-missing", key="data.labels", file=path, mentions=mentions):
        opened("{stem}.txt")
    scenes = opened("{stem}.txt", missing_labels="empty")
    assert [len(scene.labels.boxes) for scene in scenes] == [0, 1, 0]  # type: ignore[attr-defined]
    assert "2 scenes without a label file" in scenes[0].labels.notes[1]
    assert scenes[0].labels.notes[1].endswith(": a, c")
    with raises("labels-missing", file=tmp_path / "a.csv"):
        opened("{stem}.csv", missing_labels="empty")


def test_label_files_without_an_image_are_noted(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    for name in ("a", "x", "y"):
        write_dota(tmp_path / f"{name}.txt", images["a"], [upright(1, 1, 5, 5)], CLASSES)
    [scene] = opened("{stem}.txt", scenes="a.tif")
    assert "2 without an image" in scene.labels.notes[1] and "x.txt" in scene.labels.notes[1]
    every = {f"{name}.tif": (images["a"], [upright(1, 1, 5, 5)]) for name in "axy"}
    write_coco(tmp_path / "all.json", every, CLASSES)
    [scene] = opened("all.json", scenes="a.tif")
    assert scene.labels.notes[1].endswith("2 without an image: x, y")


def test_scene_without_objects_is_background(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    there = {"a.tif": (images["a"], [upright(1, 1, 5, 5)]), "b.tif": (images["b"], [])}
    write_coco(tmp_path / "all.json", there, CLASSES)
    scenes = opened("all.json", scenes="[ab].tif")
    assert scenes[1].read_target().has_labels and scenes[1].labels.overlaps is None


def test_unknown_format_is_rejected(rejected: Callable[..., None]) -> None:
    for name, text in (("a.lbl", "0 0 1 1"), ("a.txt", "\n")):
        rejected(name, text, code="label-format-unknown", key="data.format")


def test_binary_file_is_rejected(rejected: Callable[..., None]) -> None:
    rejected("a.csv", b"x\xff,y", "byte 1", code="file-unreadable", key="data.labels")


# ---------------------------------------------------------------- DOTA, YOLO, points
@pytest.mark.parametrize(
    ("line", "mentions"),
    [
        ("1 1 5 1 5 5 1 ship 0", ["line 2", "'1 1 5 1 5 5 1 ship'", "8 numbers"]),
        ("1 1 5 1 5 5 1 5", ["line 2", "8 words"]),
        ("1 1 5 1 5 5 1 5 ship 0 7", ["line 2", "11 words"]),
        ("1 1 5 1 5 5 1 5 ship maybe", ["line 2", "'maybe'"]),
    ],
)
def test_invalid_dota_lines_are_rejected(
    rejected: Callable[..., None], line: str, mentions: list[str]
) -> None:
    rejected("a.txt", GOOD + line, *mentions)


@pytest.mark.parametrize(
    ("line", "mentions"),
    [
        ("0 0.5 0.5 0.1", ["4 words"]),
        ("0 0.5 0.5 0.1 0.1 0.9 ship", ["'0.5 0.5 0.1 0.1 0.9 ship'"]),
        ("ship 0.5 0.5 0.1 0.1", ["class 'ship'"]),
        ("1.5 0.5 0.5 0.1 0.1", ["class '1.5'"]),
        ("-1 0.5 0.5 0.1 0.1", ["class '-1'"]),
        ("0 345 20 30 10", [345, "fractions"]),
        ("0 0.5 0.5 -0.1 0.1", ["width of -0.1"]),
        ("0 0.5 0.5 x 0.1", ["'0.5 0.5 x 0.1'", "4 numbers"]),
    ],
)
def test_invalid_yolo_lines_are_rejected(
    rejected: Callable[..., None], line: str, mentions: list[str]
) -> None:
    rejected("a.txt", f"0 0.5 0.5 0.1 0.1\n{line}", "line 2", *mentions, format="yolo")


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("0 0.5 0.5 0.1 0.1 0.913", "x y w h"),
        ("3.0 320 240 40 20 9e-1", "x y w h"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.5", "corners"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 1", "corners"),
    ],
)
@pytest.mark.parametrize("before", ["", "0 0.5 0.5 0.1 0.1\n"])
def test_predictions_of_yolo_are_no_labels(
    rejected: Callable[..., None], line: str, shape: str, before: str
) -> None:
    """The format is recognised from the first line."""
    number = 2 if before else 1
    mentions = [f"line {number}", f"a class, {shape} and a score", "remove the last number"]
    rejected("a.txt", before + line, *mentions)
    rejected("a.txt", before + line, *mentions, format="yolo")


@pytest.mark.parametrize(
    ("line", "mentions"),
    [
        ("0 0.5 0.5 0.1 0.1 0.4 0.4 2 0.6 0.6 0", ["11 numbers", "keypoints", "first five"]),
        ("0 0.5 0.5 0.1 0.1" + " 0.4 0.4 2" * 16 + " 0 0 0", ["56 numbers", "keypoints"]),
        ("0 0.5 0.5 0.2 0.1 1.57", ["found 6 words", "expected a class and x y w h"]),
        ("0 0.5 0.5 0.2 0.1 12", ["found 6 words", "expected a class and x y w h"]),
    ],
)
def test_keypoints_angles_and_tracks_are_no_scores_or_corners(
    rejected: Callable[..., None], line: str, mentions: list[str]
) -> None:
    rejected("a.txt", line, "line 1", *mentions)
    rejected("a.txt", line, "line 1", *mentions, format="yolo")


def test_four_corners_in_pixels_with_a_class_number_are_dota(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    (tmp_path / "a.txt").write_text("1 1 5 1 5 5 1 5 2 0")
    [scene] = opened("a.txt", scenes="a.tif", classes=["1", "2"])
    assert "read as dota" in scene.labels.notes[0]  # type: ignore[attr-defined]


def test_yolo_numbers_may_be_floats(tmp_path: Path, images: Images, opened: Opened) -> None:
    """As numpy and pandas write them."""
    text = "1.0 5.000000000000000000e-01 5e-1 9.5e-02 0.1\n0.0 0.5 0.5 0.1 1e-1\n"
    (tmp_path / "a.txt").write_text(text)
    for classes in (CLASSES, ["1", "2"]):  # an index, whatever the names
        [scene] = opened("a.txt", scenes="a.tif", classes=classes)
        labels: Any = scene.labels
        assert "read as yolo" in labels.notes[0]
        assert labels.boxes[0] == pytest.approx([36.2, 27, 43.8, 33])
        assert labels.indices.tolist() == [1, 0]


def test_unknown_yolo_class_is_rejected(rejected: Callable[..., None]) -> None:
    text = "0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1"
    mentions = ("'7' (1 annotations)", "line 2")
    rejected("a.txt", text, *mentions, code="class-unknown", format="yolo")


@pytest.mark.parametrize(
    ("text", "code", "mentions"),
    [
        ("a,b\n1,2", "column-missing", ["'a, b'"]),
        ("x,y\n1,2\n3", "row-invalid", ["line 3", "1 values for 2 columns"]),
        ("x,y\n1,two", "row-invalid", ["line 2", "'1 two'"]),
        ("x,y\n1," + "9" * 200_000, "file-unreadable", []),
        (",\n,\nx,y\n\n1", "row-invalid", ["line 5", "1 values for 2 columns"]),
        ("x,y\n1,nan", "row-invalid", ["line 2"]),
    ],
)
def test_invalid_point_tables_are_rejected(
    rejected: Callable[..., None], text: str, code: str, mentions: list[str]
) -> None:
    rejected("a.csv", text, *mentions, code=code, classes=["tree"], point_size="4 px")


def test_points_require_a_size_in_known_units(
    tmp_path: Path, images: Images, opened: Opened, write_raster: Any
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with raises("point-size", key="data.point_size", file=tmp_path / "a.tif"):
        opened("a.csv", scenes="a.tif", classes=["tree"])
    write_raster("plain.tif", [[1, 1], [1, 1]], crs=None)
    with raises("metadata-missing", key="data.point_size", file=tmp_path / "plain.tif"):
        opened("a.csv", scenes="plain.tif", classes=["tree"], point_size="2 m")


def test_points_without_class_are_rejected_for_several_classes(
    rejected: Callable[..., None],
) -> None:
    mentions = ("line 2", "ship, crane")
    rejected("a.csv", "x,y\n1,2\n", *mentions, code="class-field", point_size="4 px")


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
    ("changes", "mentions"),
    [
        ({"annotation": {"bbox": [1, 2, 3]}}, ["annotation 7", "[1, 2, 3]"]),
        ({"annotation": {"bbox": [1, 2, "x", 3]}}, ["annotation 7", "'1 2 x 3'"]),
        ({"annotation": {"bbox": [1, 2, True, 3]}}, ["annotation 7", "'1 2 True 3'"]),
        ({"annotation": {"bbox": [1, 2, -3, 3]}}, ["annotation 7", "width -3"]),
        ({"annotation": {"bbox": None}}, ["annotation 7", "bbox", "segmentation"]),
        ({"annotation": {"category_id": 4}}, ["annotation 7", "category_id 4"]),
        ({"annotation": {"category_id": [4]}}, ["annotation 7", "category_id [4]"]),
        ({"annotation": {"image_id": 9}}, ["annotation 7", "image_id 9"]),
        ({"annotation": {"bbox": [float("nan"), 1, 1, 1]}}, ["annotation 7", "not finite"]),
        ({"images": [{"id": 1}]}, ["image 1", "file_name"]),
    ],
)
def test_invalid_coco_items_are_rejected(
    rejected: Callable[..., None], changes: Any, mentions: list[str]
) -> None:
    rejected("all.json", _coco(**changes), *mentions)


@pytest.mark.parametrize(
    ("listed", "code", "mention"),
    [
        ([{"id": 1, "file_name": "z.tif"}], "label-image", "a.tif"),
        ("a.tif", "file-unreadable", "'images'"),
        (
            [{"id": 1, "file_name": "a.tif", "height": 6e9, "width": 8e9}],
            "image-size",
            "6e+09x8e+09",
        ),
    ],
)
def test_coco_files_of_other_images_are_rejected(
    rejected: Callable[..., None], listed: Any, code: str, mention: str
) -> None:
    rejected("all.json", _coco(images=listed), mention, code=code)


@pytest.mark.parametrize(
    ("segmentation", "code", "mentions"),
    [
        ([[1, 1, 5, 5, 3]], "row-invalid", ["[1, 1, 5, 5, 3]"]),
        ({"size": [10**6, 10**6], "counts": "0"}, "image-size", ["1e+06x1e+06"]),
        ({"size": [60, 80], "counts": [4]}, "row-invalid", ["run-length", "60x80"]),
        ({"size": [60, 80], "counts": ["x"]}, "row-invalid", ["run-length"]),
        ({"size": [60, 80], "counts": "~~"}, "row-invalid", ["run-length", "'~'"]),
        ({"size": [60, 80], "counts": [10**30]}, "row-invalid", ["run-length"]),
        ({"counts": [4800]}, "row-invalid", ["size"]),
    ],
)
def test_invalid_coco_segmentations_are_rejected(
    rejected: Callable[..., None], segmentation: Any, code: str, mentions: list[str]
) -> None:
    text = _coco(annotation={"segmentation": segmentation})
    rejected("all.json", text, "annotation 7", *mentions, code=code, oriented=True)


def test_truncated_json_is_rejected(rejected: Callable[..., None]) -> None:
    rejected("all.json", _coco()[:-9], code="file-unreadable")
    rejected("all.json", "[" * 200_000, code="file-unreadable")


def test_coco_boxes_without_outline_are_noted_for_oriented_boxes(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    (tmp_path / "all.json").write_text(_coco())
    [scene] = opened("all.json", scenes="a.tif", oriented=True)
    assert "annotations without an outline" in scene.labels.notes[-1]
    [scene] = opened("all.json", scenes="a.tif")
    assert len(scene.labels.notes) == 1


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize(
    ("leftover", "expected"),
    [
        ({"segmentation": [[]]}, [1, 1, 6, 6]),
        ({"segmentation": [[2, 2, 4, 4]]}, [1, 1, 6, 6]),
        ({"segmentation": [[2, 2], [10, 20, 14, 20, 14, 28, 10, 28]]}, None),
        ({"bbox": [], "segmentation": [[10, 20, 14, 20, 14, 28, 10, 28]]}, [10, 20, 14, 28]),
        (
            {"bbox": [0, 0, 0, 0], "segmentation": [[10, 20, 14, 20, 14, 28, 10, 28]]},
            [10, 20, 14, 28],
        ),
        ({"segmentation": {"size": [60, 80], "counts": [4800]}}, [1, 1, 6, 6]),
        ({"segmentation": {}}, [1, 1, 6, 6]),
        ({"image_id": 1.0, "category_id": 3.0, "iscrowd": 0.0}, [1, 1, 6, 6]),
        ({"image_id": "1", "category_id": "3", "iscrowd": "0"}, [1, 1, 6, 6]),
    ],
)
def test_coco_leftovers_of_tools_do_not_matter(
    tmp_path: Path, images: Images, opened: Opened, oriented: bool, leftover: Any, expected: Any
) -> None:
    (tmp_path / "all.json").write_text(_coco(annotation=leftover))
    [scene] = opened("all.json", scenes="a.tif", oriented=oriented)
    labels: Any = scene.labels
    if expected is None:
        expected = [10, 20, 14, 28] if oriented else [1, 1, 6, 6]
    assert hull(labels.boxes).tolist() == [pytest.approx(expected)]
    assert labels.indices.tolist() == [0] and not labels.difficult.any()


def test_coco_annotations_without_box_and_outline_are_rejected(
    rejected: Callable[..., None],
) -> None:
    text = _coco(annotation={"bbox": [], "segmentation": [[]]})
    rejected("all.json", text, "annotation 7", "bbox", "segmentation")


def test_coco_images_with_the_same_name_are_matched_by_folder(
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
    with raises("label-image", file=tmp_path / "all.json", mentions=["2 images", "a.tif"]):
        opened("all.json", scenes="two/a.tif")


def test_coco_images_are_matched_in_any_unicode_form(
    tmp_path: Path, write_raster: Any, opened: Opened
) -> None:
    name = "ré"
    write_raster(unicodedata.normalize("NFD", name) + ".tif", [[[1] * 80] * 60])
    (tmp_path / "all.json").write_text(_coco(images=[{"id": 1, "file_name": f"{name}.tif"}]))
    [scene] = opened("all.json", scenes="r*.tif")
    assert len(scene.labels.boxes) == 1  # type: ignore[attr-defined]
    assert len(scene.labels.notes) == 1


# ---------------------------------------------------------------- Pascal VOC
def _voc(box: str = "", size: str = "<size><width>80</width><height>60</height></size>") -> str:
    inside = f"<object><name>ship</name><bndbox>{box}</bndbox></object>"
    return f"<annotation>{size}{inside}</annotation>"


def _sides(*values: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, values, strict=True))


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        (_voc(_sides(1, 1, 5, "x")), ["'1 1 5 x'", "4 numbers"]),
        (_voc("<xmin>1</xmin>"), ["'1 None None None'"]),
        (_voc(_sides(9, 1, 5, 5)), ["(9, 1)", "(5, 5)"]),
        (_voc().replace("bndbox", "box"), ["no <bndbox>"]),
    ],
)
def test_invalid_voc_objects_are_rejected(
    rejected: Callable[..., None], text: str, mentions: list[str]
) -> None:
    rejected("a.xml", text, "object 1", *mentions)


def test_truncated_xml_and_other_image_sizes_are_rejected(rejected: Callable[..., None]) -> None:
    rejected("a.xml", _voc(_sides(1, 1, 5, 5))[:-20], code="file-unreadable")
    size = "<size><width>99999999</width><height>6</height></size>"
    rejected("a.xml", _voc(_sides(1, 1, 5, 5), size), "<size>", "6x1e+08", code="image-size")


def test_xml_may_have_any_declared_encoding(
    tmp_path: Path, images: Images, opened: Opened, rejected: Callable[..., None]
) -> None:
    text = _voc(_sides(1, 1, 20, 9)).replace("ship", "bétail")
    for encoding in ("ISO-8859-1", "windows-1252", "UTF-16", "UTF-8"):
        declared = f'<?xml version="1.0" encoding="{encoding}"?>{text}'
        (tmp_path / "a.xml").write_bytes(declared.encode(encoding))
        [scene] = opened("a.xml", scenes="a.tif", classes=["bétail", "crane"])
        assert len(scene.labels.boxes) == 1  # type: ignore[attr-defined]
    for encoding in ("GB18030", "klingon"):
        declared = f'<?xml version="1.0" encoding="{encoding}"?>{text}'
        rejected("a.xml", declared, code="file-unreadable")


@pytest.mark.parametrize("oriented", [False, True])
def test_rolabelimg_boxes_are_those_that_its_dota_files_state(
    shared_data: Path, opened: Opened, oriented: bool
) -> None:
    thermal = shared_data / "thermal"
    [image] = (thermal / "images").glob("0_100_80_0_03472.*")
    boxes = []
    for labels in ("xml/{stem}.xml", "labelTxt/{stem}.txt"):
        [scene] = opened(
            str(thermal / labels),
            scenes=str(image),
            classes=["Person", "Car", "Bicycle"],
            oriented=oriented,
            other_classes="leave_out",
        )
        boxes.append(scene.labels.boxes)  # type: ignore[attr-defined]
    assert boxes[0] == pytest.approx(boxes[1], abs=0.1)


def test_rolabelimg_boxes_turn_clockwise(tmp_path: Path, images: Images, opened: Opened) -> None:
    angle = 0.5
    box = f"<cx>30</cx><cy>20</cy><w>16</w><h>6</h><angle>{angle}</angle>"
    (tmp_path / "a.xml").write_text(_voc(box).replace("bndbox", "robndbox"))
    [scene] = opened("a.xml", scenes="a.tif", oriented=True)
    labels: Any = scene.labels
    expected = shapely.affinity.rotate(shapely.box(22, 17, 38, 23), np.degrees(angle))  # y is down
    result = shapely.Polygon(corners(labels.boxes)[0])
    assert result.symmetric_difference(expected).area < 1e-6


def test_xml_entities_are_rejected(rejected: Callable[..., None]) -> None:
    for entity in (
        '<!ENTITY a "aa"><!ENTITY b "&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
    ):
        text = f"<!DOCTYPE x [{entity}]>" + _voc(_sides(1, 1, 5, 5))
        rejected("a.xml", text, "entity 'a'", code="file-unreadable")


def test_voc_size_of_zero_means_unknown(tmp_path: Path, images: Images, opened: Opened) -> None:
    size = "<size><width>0</width><height>0</height></size>"
    (tmp_path / "a.xml").write_text(_voc(_sides(1, 1, 20, 9), size))
    [scene] = opened("a.xml", scenes="a.tif")
    assert scene.labels.boxes.tolist() == [[0, 0, 20, 9]]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- vector files
def test_invalid_vector_files_are_rejected(tmp_path: Path, images: Images, opened: Opened) -> None:
    path = tmp_path / "all.gpkg"

    def check(
        code: str,
        mentions: list[str],
        shapes: list[Any],
        crs: str | None = "EPSG:32633",
        **columns: Any,
    ) -> None:
        path.unlink(missing_ok=True)
        geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
        with raises(code, file=path, mentions=[path, *mentions]):
            opened("all.gpkg", oriented=True)

    west, north = images["a"].transform @ (0, 0)
    inside = shapely.box(west + 10, north - 100, west + 50, north - 50)
    far = shapely.box(0, 0, 10, 10)
    line = shapely.LineString([(0, 0), (1, 1)])
    check("geometry-type", ["feature 2", "LineString", "1 such"], [inside, line])
    check("geometry-type", ["feature 1", "no geometry"], [None, inside], label=["ship", "ship"])
    check("class-field", ["feature 1, feature 2", "ship, crane"], [inside, inside])
    check("class-unknown", ["'boat' (1 annotations)"], [inside], label=["boat"])
    check("label-value", ["'difficult'"], [inside], label=["ship"], difficult=["maybe"])
    check("crs-missing", [], [inside], crs=None, label=["ship"])
    check("labels-outside", [], [far], label=["ship"])


def ships(path: Path, image: RasterSource, *rings: list[tuple[float, float]]) -> None:
    """Write a vector file of ships; corners are in metres east and south of an image's corner."""
    west, north = image.transform @ (0, 0)
    shapes = [shapely.Polygon([(west + east, north - south) for east, south in r]) for r in rings]
    labels = ["ship"] * len(shapes)
    geopandas.GeoDataFrame({"label": labels}, geometry=shapes, crs="EPSG:32633").to_file(path)


def square(west: float, east: float) -> list[tuple[float, float]]:
    """A ring 50 m high, 50 m below the corner."""
    return [(west, 50), (east, 50), (east, 100), (west, 100)]


SELF_INTERSECTING: list[tuple[float, float]] = [(0, 0), (40, 40), (40, 0), (0, 40)]


def test_features_with_neither_geometry_nor_class_are_skipped(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    west, north = images["a"].transform @ (0, 0)
    inside = shapely.box(west + 10, north - 100, west + 50, north - 50)
    for columns in ({"class": [None, "ship", None]}, {}):
        frame = geopandas.GeoDataFrame(
            columns, geometry=[None, inside, shapely.Polygon()], crs="EPSG:32633"
        )
        frame.to_file(tmp_path / "all.gpkg")
        scene, *_ = opened("all.gpkg", classes=["ship"])
        assert len(scene.labels.boxes) == 1  # type: ignore[attr-defined]
        assert not [note for note in scene.labels.notes if "skipped" in note]
        mask = open_labels(tmp_path / "all.gpkg", images["a"], classes=["background", "ship"])
        assert mask.overlaps


def test_objects_of_other_scenes_are_not_noted(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    ships(tmp_path / "all.gpkg", images["a"], square(10, 50), square(-30, -10), SELF_INTERSECTING)
    scene, *_ = opened("all.gpkg")
    assert len(scene.labels.boxes) == 2  # type: ignore[attr-defined]
    assert len(scene.labels.notes) == 2
    assert "self-intersecting" in scene.labels.notes[1] and "feature 3" in scene.labels.notes[1]


def test_objects_outside_the_only_scene_of_a_file_are_noted(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    beside, far = square(-30, -10), square(-90000, -80000)
    ships(tmp_path / "a.gpkg", images["a"], square(10, 50), beside, far)
    [scene] = opened("{stem}.gpkg", scenes="a.tif")
    [note] = [n for n in scene.labels.notes if "outside their image" in n]  # type: ignore[attr-defined]
    assert "skipped: 2 (" in note and "a.gpkg feature 2" in note and "a.gpkg feature 3" in note


CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")


def _oriented(*numbers: object) -> str:
    keys = [f"{axis}_{corner}" for corner in CORNERS for axis in "xy"]
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, numbers, strict=False))
    return _voc().replace("<bndbox></bndbox>", f"<robndbox>{sides}</robndbox>")


def test_invalid_oriented_voc_boxes_are_rejected(rejected: Callable[..., None]) -> None:
    rejected("a.xml", _oriented(1, 1, 9, 1, 9, "x", 1, 5), "object 1", "'1 1 9 1 9 x 1 5'")
    rejected("a.xml", _oriented(1, 1, 9, 1), "object 1", "8 numbers")


@pytest.mark.parametrize(
    ("points", "mentions"),
    [
        ("<point>1,2</point><point>3,4</point>", ["2 points", "at least 3"]),
        ("<point>1,2</point>" * 3 + "<point>7</point>", ["4 points", "at least 3"]),
        ("<point>1,x</point>" * 3, ["'1 x 1 x 1 x'", "6 numbers"]),
    ],
)
def test_invalid_fair1m_outlines_are_rejected(
    rejected: Callable[..., None], points: str, mentions: list[str]
) -> None:
    name = "<possibleresult><name>ship</name></possibleresult>"
    text = f"<annotation><object>{name}<points>{points}</points></object></annotation>"
    rejected("a.xml", text, "object 1", *mentions, format="fair1m")


@pytest.mark.parametrize(
    ("line", "mention"),
    [
        ("(1,2),(3,4)", "'(1,2),(3,4)'"),
        ("(1,x),(3,4),1", "'1 x 3 4'"),
        ("(1,2),(3,4),ship", "'(1,2),(3,4),ship'"),
    ],
)
def test_invalid_nwpu_lines_are_rejected(
    rejected: Callable[..., None], line: str, mention: str
) -> None:
    rejected("a.txt", f"(1, 2), (3, 4), 1\n{line}", "line 2", mention, format="nwpu")


def test_an_image_in_a_coco_file_belongs_to_one_scene(tmp_path: Path, write_raster: Any) -> None:
    """Scenes of the same name in several folders, of which the file lists one."""
    for tile in ("one", "two"):
        write_raster(f"{tile}/a.tif", np.ones((1, 60, 80), dtype="uint8"))
    path = tmp_path / "all.json"
    paths: Any = {"scenes": f"{tmp_path}/{{tile}}/a.tif", "labels": str(path)}
    for name in ("a.tif", "one/a.tif"):
        path.write_text(_coco(images=[{"id": 1, "file_name": name}]))
        with raises("label-image", file=path, mentions=["one/a.tif", "two/a.tif", "file_name"]):
            open_annotated_scenes(**paths, classes=["ship"], options=AnnotationOptions())
