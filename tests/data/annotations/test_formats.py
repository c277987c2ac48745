"""Every annotation format reads back what was written, and is detected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotune.boxes.oriented import corners
from geotune.data.annotations.formats import detect_format
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.registry import ANNOTATION_FORMATS
from helpers.annotation_files import PER_IMAGE, Thing, upright, write_coco, write_points

CLASSES = ["ship", "crane"]
SHAPE = 60, 80
HORIZONTAL = ("voc", "nwpu")
WITHOUT_DIFFICULT = ("fair1m", "nwpu", "yolo")
"""Formats that do not mark difficult objects."""
Opened = Callable[..., list[Scene]]
Images = dict[str, RasterSource]


def things(oriented: bool) -> list[Thing]:
    if not oriented:
        return [
            upright(3, 4, 10.5, 22),
            upright(70, 50, 85, 58, name="crane", difficult=True),
        ]
    boxes = np.array([[20, 30, 16, 6, 0.4], [60, 20, 9, 5, -1.2]])
    result = [Thing(c, n) for c, n in zip(corners(boxes), CLASSES, strict=True)]
    return [result[0], Thing(result[1].corners, "crane", difficult=True)]


def write_all(kind: str, folder: Path, images: Images, objects: list[Thing]) -> str:
    """Write `objects` as those of every image; return the pattern of the files."""
    if kind == "coco":
        every = {f"{name}.tif": (raster, objects) for name, raster in images.items()}
        write_coco(folder / "all.json", every, CLASSES)
        return "all.json"
    suffix, write = PER_IMAGE[kind]
    for name, raster in images.items():
        write(folder / f"{name}.{suffix}", raster, objects, CLASSES)
    return f"{{stem}}.{suffix}"


def outlines_of(scene: Scene) -> Any:
    target = scene.labels.read(Window(0, 0, *SHAPE))
    boxes: Any = target.boxes  # type: ignore[attr-defined]  # these labels give objects
    return shapely.polygons(corners(boxes)) if boxes.shape[1] == 5 else shapely.box(*boxes.T)


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("kind", ["coco", *PER_IMAGE])
def test_written_annotations_are_read_back(
    kind: str, oriented: bool, tmp_path: Path, images: Images, opened: Opened
) -> None:
    objects = things(oriented and kind not in HORIZONTAL)
    scenes = opened(write_all(kind, tmp_path, images, objects), oriented=oriented)
    assert [scene.name for scene in scenes] == ["a", "b", "c"]
    for scene in scenes:
        for result, thing in zip(outlines_of(scene), objects, strict=True):
            expected = shapely.Polygon(thing.corners)
            assert result.symmetric_difference(expected).area < 1e-6
        target: Any = scene.labels.read(Window(0, 0, *SHAPE))
        assert target.classes.tolist() == [0, 1]
        assert target.difficult.tolist() == [False, kind not in WITHOUT_DIFFICULT]
        assert scene.labels.notes[0].endswith(f"read as {kind}; set data.format to change this")


@given(
    boxes=st.lists(
        st.tuples(
            st.floats(5, 75),
            st.floats(5, 55),
            st.floats(3, 20),
            st.floats(1, 2.9),
            st.floats(-1.5, 1.5),
        ),
        min_size=1,
        max_size=3,
    ),
    kind=st.sampled_from(["coco", "dota", "fair1m", "yolo", "vector"]),
)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_oriented_boxes_round_trip(
    boxes: Any, kind: str, tmp_path: Path, images: Images, opened: Opened
) -> None:
    objects = [Thing(outline) for outline in corners(np.array(boxes))]
    pattern = write_all(kind, tmp_path, images, objects)
    scene, *_ = opened(pattern, oriented=True, format=kind)
    result = scene.labels.boxes  # type: ignore[attr-defined]  # these labels have boxes
    for box, (x, y, w, h, angle) in zip(result, boxes, strict=True):
        assert box[:4] == pytest.approx([x, y, w, h], abs=1e-5)
        assert abs(np.sin(box[4] - angle)) < 1e-4


def test_points_become_boxes_of_point_size(tmp_path: Path, images: Images, opened: Opened) -> None:
    write_points(tmp_path / "a.csv", images["a"], [upright(4, 4, 6, 6)], CLASSES)
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text("y;x".replace(";", ",") + "\n3,70.5\n\n")
    one = {"classes": ["ship"], "scenes": "*.tif"}
    in_pixels = opened("{stem}.csv", point_size="4 px", **one)
    boxes: list[Any] = [scene.labels.boxes.tolist() for scene in in_pixels]  # type: ignore[attr-defined]
    assert boxes == [[[3, 3, 7, 7]], [], [[68.5, 1, 72.5, 5]]]
    assert [scene.labels.overlaps for scene in in_pixels] == [True, None, True]
    in_metres = opened("{stem}.csv", point_size="20 m", **one)  # pixels of 10 m
    assert in_metres[0].labels.boxes.tolist() == [[4, 4, 6, 6]]  # type: ignore[attr-defined]


def test_polygons_are_reprojected(tmp_path: Path, images: Images, opened: Opened) -> None:
    from helpers.annotation_files import write_vector

    objects = things(oriented=True)
    write_vector(tmp_path / "all.geojson", images["a"], objects, CLASSES, crs="EPSG:4326")
    scene, *_ = opened("all.geojson", oriented=True)
    for result, thing in zip(outlines_of(scene), objects, strict=True):
        expected = shapely.Polygon(thing.corners)
        assert result.symmetric_difference(expected).area < 0.01 * expected.area


def test_points_in_a_vector_file_become_boxes(
    tmp_path: Path, images: Images, opened: Opened
) -> None:
    import geopandas

    points = [shapely.Point(*(images["a"].transform @ (20, 30)))]
    geopandas.GeoDataFrame(geometry=points, crs="EPSG:32633").to_file(tmp_path / "p.gpkg")
    scene, *_ = opened("p.gpkg", classes=["tree"], point_size="60 m")
    assert scene.labels.boxes.ravel() == pytest.approx([17, 27, 23, 33])  # type: ignore[attr-defined]


def test_every_registered_format_is_tested() -> None:
    assert set(ANNOTATION_FORMATS) == {"coco", "points", *PER_IMAGE}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(1,1),(5,5),2", "nwpu"),
        ("0 0.5 0.5 0.1 0.2", "yolo"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "yolo"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "yolo"),
        ("1 1 5 1 5 5 1 5 ship", "dota"),
        ("1 1 5 1 5 5 1 5 0 0", "dota"),
        ("gsd:null\n1 1 5 1 5 5 1 5 large-ship 1", "dota"),
    ],
)
def test_text_formats_are_detected(text: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "a.txt").write_text(text)
    assert detect_format([tmp_path / "empty.txt", tmp_path / "a.txt"]) == kind
