"""Issues of labels: attributes that are not read, odd numbers, labels outside of their image."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.transform import from_origin

from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.checks.label_checks import check_labels
from geotune.data.checks.scanned import scan_splits
from geotune.data.labels.density_labels import open_density_labels
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.scenes.labelled_images import open_images
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.scene import Scene

SIDE = 40
KINDS = ["segment", "detect", "density"]


@pytest.fixture
def warnings_of(write_raster: Any, tmp_path: Path) -> Any:
    """The warnings about attributes of two files of features with these columns."""

    def warn(kind: str, files: list[dict[str, Any]], class_field: str | None = None) -> list[str]:
        for number, columns in enumerate(files):
            noise = np.random.default_rng(number).integers(0, 255, (1, SIDE, SIDE)).astype("uint8")
            raster = write_raster(f"s{number}.tif", noise)
            count = len(next(iter(columns.values())))
            corners = [(500_000 + 40 * i, 4_999_900 - 30 * number) for i in range(count)]
            shapes: list[Any] = [shapely.box(x, y - 30, x + 30, y) for x, y in corners]
            if kind == "density":
                shapes = [shape.centroid for shape in shapes]
            frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32633")
            frame.to_file(raster.with_suffix(".geojson"))
        paths: Any = {"scenes": f"{tmp_path}/s*.tif", "labels": f"{tmp_path}/{{stem}}.geojson"}
        if kind == "detect":
            options = AnnotationOptions(class_field=class_field)
            scenes = open_annotated_scenes(**paths, classes=["vessel"], options=options)
        else:
            read = (
                partial(open_labels, classes=["background", "vessel"])
                if kind == "segment"
                else partial(open_density_labels, objects="vessel")
            )
            scenes = open_scenes(partial(read, class_field=class_field), **paths)
        scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=SIDE)
        issues = [i for i in check_labels(scanned) if i.severity == "warning"]
        assert {issue.key for issue in issues} <= {"data.class_field"}
        return [issue.text for issue in issues]

    return warn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("columns", "mentions"),
    [
        ({"type": ["buoy", None] * 3}, ["type", "'buoy' (6)", "none (6)"]),
        ({"type": ["buoy", "vessel"]}, ["type", "'buoy' (2)", "'vessel' (2)"]),
        ({"Kind": ["buoy", "ferry"] * 2}, ["Kind", "'buoy' (4)", "'ferry' (4)"]),
        ({"code": [1, 2, 2, 1]}, ["code", "'1' (4)", "'2' (4)"]),
        ({"code": [7, None, 7, None]}, ["code", "'7' (4)", "none (4)"]),
        ({"moored": [True, False, False]}, ["moored"]),
    ],
)
def test_an_unread_class_gives_a_warning(
    warnings_of: Any, kind: str, columns: Any, mentions: list[str]
) -> None:
    [text] = warnings_of(kind, [columns] * 2)
    for part in ("vessel", "data.class_field", *mentions):
        assert part in text
    assert not warnings_of(kind, [columns] * 2, class_field="")


@pytest.mark.parametrize("kind", ["detect", "density"])
def test_an_attribute_beside_an_empty_class_gives_a_warning(warnings_of: Any, kind: str) -> None:
    [text] = warnings_of(kind, [{"class": [None] * 4, "type": ["buoy", "vessel"] * 2}] * 2)
    assert "'buoy' (4)" in text and "'vessel' (4)" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "columns",
    [
        {"name": ["a", "b", "c"]},
        {"id": [1, 2, 3]},
        {"number": [1, 2, 3]},
        {"length": [1.5, 2.5, 2.5, 1.5]},
        {"source": ["map"] * 4},
        {"date": ["2020-01-01", "2020-01-02", "2020-01-02"]},
    ],
)
def test_other_attributes_give_no_warning(warnings_of: Any, kind: str, columns: Any) -> None:
    others = {
        name: [value + "x" if name == "name" else value for value in values]
        for name, values in columns.items()
    }
    assert not warnings_of(kind, [columns, others])


def test_an_attribute_of_a_table_of_points_gives_a_warning(
    write_raster: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        write_raster(f"{name}.tif", rng.integers(0, 255, (1, SIDE, SIDE)).astype("uint8"))
        rows = "x,y,species,height\n1,2,oak,3.5\n5,6,elm,4\n9,9,oak,5\n"
        (tmp_path / f"{name}.csv").write_text(rows)
    paths: Any = {"scenes": f"{tmp_path}/*.tif", "labels": f"{tmp_path}/{{stem}}.csv"}
    options = AnnotationOptions(point_size="4 px")
    objects = open_annotated_scenes(**paths, classes=["tree"], options=options)
    counted = open_scenes(partial(open_density_labels, objects="tree"), **paths)
    for scenes in (objects, counted):
        scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=SIDE)
        [text] = [i.text for i in check_labels(scanned) if i.severity == "warning"]
        assert "species" in text and "'oak' (4)" in text and "height" not in text


def test_the_peak_of_a_density_is_no_undeclared_nodata(write_raster: Any, tmp_path: Path) -> None:
    for name in "ab":
        write_raster(f"{name}.tif", np.random.default_rng(0).random((1, 96, 96)).astype("float32"))
        (tmp_path / f"{name}.csv").write_text("x,y\n48,48\n")  # four pixels have the highest value
    paths: Any = {"scenes": f"{tmp_path}/*.tif", "labels": f"{tmp_path}/{{stem}}.csv"}
    scenes = open_scenes(partial(open_density_labels, objects="tree"), **paths)
    scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=96)
    assert not [issue.text for issue in check_labels(scanned) if issue.severity == "warning"]


def test_a_class_that_is_read_gives_no_warning(write_raster: Any, tmp_path: Path) -> None:
    write_raster("a.tif", np.ones((1, SIDE, SIDE), dtype="uint8"))
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    features = [
        {"type": "Feature", "geometry": shape, "properties": {"class": "vessel", "flag": flag}}
        for flag in ("no", "fr", "no")
    ]
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    from geotune.data.raster.open_raster import open_raster

    labels = open_labels(
        tmp_path / "a.geojson", open_raster(tmp_path / "a.tif"), classes=["background", "vessel"]
    )
    assert not labels.unread  # type: ignore[attr-defined]  # of polygons


def _outlying(
    write_raster: Any, folder: Path, values: list[Any], nodata: float | None, **options: Any
) -> list[str]:
    for name, labels in zip("ab", values, strict=True):
        noise = np.random.default_rng(ord(name)).integers(0, 255, (1, SIDE, SIDE)).astype("uint8")
        write_raster(f"s/{name}.tif", noise)
        write_raster(f"l/{name}.tif", labels.astype("float32"), nodata=nodata, **options)
    scenes = open_scenes(
        partial(open_regression_labels, quantity="height"),
        scenes=f"{folder}/s/*.tif",
        labels=f"{folder}/l/{{stem}}.tif",
    )
    scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=SIDE)
    return [issue.text for issue in check_labels(scanned) if issue.severity == "warning"]


@pytest.mark.parametrize("value", [-9999.0, -3.4028234663852886e38, 1e20, 65535.0])
def test_numbers_far_from_all_others_give_a_warning(
    write_raster: Any, tmp_path: Path, value: float
) -> None:
    heights = np.random.default_rng(0).uniform(0, 30, (2, SIDE, SIDE))
    heights[:, :4] = value
    heights[1, :8] = value
    [text] = _outlying(write_raster, tmp_path, [*heights], None)
    for part in ("l/b.tif", "20.0%", f"{value:g}", "1 other scene", "gdal_edit.py -a_nodata"):
        assert part in text
    assert not _outlying(write_raster, tmp_path, [*heights], value)


@pytest.mark.parametrize("side", [5, 20, 7])
def test_numbers_of_resampled_labels_are_those_of_their_file(
    write_raster: Any, tmp_path: Path, side: float
) -> None:
    """Resampling mixes -9999 with its neighbours, so that it is no longer far from them."""
    pixels = round(10 * SIDE / side)
    heights = np.random.default_rng(0).uniform(0, 30, (2, pixels, pixels))
    heights[:, : pixels // 10] = -9999
    transform = from_origin(500_000, 5_000_000, side, side)
    [text] = _outlying(write_raster, tmp_path, [*heights], None, transform=transform)
    centres_m = 10 * (np.arange(SIDE) + 0.5)
    share = (centres_m < pixels // 10 * side).mean()
    assert f"{share:.1%} of its labels have the value -9999" in text
    assert not _outlying(write_raster, tmp_path, [*heights], -9999, transform=transform)


def test_numbers_of_images_are_compared_with_those_of_other_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for value, expected in ((-9999, 1), (3.5, 0)):
        rows = [f"{i}.png,{rng.uniform(0, 30) if i % 4 else value}" for i in range(12)]
        (tmp_path / "labels.csv").write_text("\n".join(["path,value", *rows]))
        for i in range(12):
            pixels = rng.integers(0, 255, (16, 16)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        scenes = open_images(
            images=tmp_path, classes=["height"], column="value", labels=tmp_path / "labels.csv"
        )
        scanned = scan_splits({"train": scenes[:8], "val": scenes[8:], "test": []}, window=16)
        texts = [i.text for i in check_labels(scanned) if i.severity == "warning"]
        assert len(texts) == expected
    path = tmp_path / "labels.csv"
    path.write_text("path,value\n0.png,1\n1.png,2\n")
    scenes = open_images(images=tmp_path, classes=["h"], column="value", labels=path)
    scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=16)
    assert not [i for i in check_labels(scanned) if i.severity == "warning"]


@pytest.mark.parametrize("kind", ["two levels", "constant", "mostly zero", "long tail"])
def test_usual_numbers_give_no_warning(write_raster: Any, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "two levels": 100.0 * rng.integers(0, 2, (2, SIDE, SIDE)),
        "constant": np.full((2, SIDE, SIDE), 7.0),
        "mostly zero": np.maximum(rng.normal(-10, 10, (2, SIDE, SIDE)), 0),
        "long tail": rng.lognormal(0, 2, (2, SIDE, SIDE)),
    }[kind]
    assert not _outlying(write_raster, tmp_path, [*values], None)


@pytest.fixture
def ship_scenes(write_raster: Any) -> None:
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (1, SIDE, SIDE)).astype("uint8")
        transform = from_origin(500_000 + 1000 * number, 5_000_000, 10, 10)
        write_raster(f"s{number}.tif", noise, transform=transform)


def label_issues(scenes: list[Scene]) -> list[str]:
    one, other, *rest = scenes
    scanned = scan_splits({"train": [one, *rest], "val": [other], "test": []}, window=SIDE)
    texts = [issue.text for issue in check_labels(scanned)]
    return [text for text in texts if "none of its labels" in text or "is labelled in" in text]


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_only_objects_of_the_classes_can_lie_outside_of_their_image(
    ship_scenes: None, tmp_path: Path, place: str
) -> None:
    """An image with objects of other classes alone has no objects, wherever they are."""
    x = 5 if place == "inside" else 500
    box = f"{x} 5 {x + 9} 5 {x + 9} 9 {x} 9"
    for number, name in enumerate(["ship", "ship", "buoy"]):
        line = f"5 5 14 5 14 9 5 9 {name} 0" if number == 0 else f"{box} {name} 0"
        (tmp_path / f"s{number}.txt").write_text(line + "\n")
    scenes = open_annotated_scenes(
        scenes=f"{tmp_path}/s*.tif",
        labels=f"{tmp_path}/{{stem}}.txt",
        classes=["ship"],
        options=AnnotationOptions(other_classes="leave_out"),
        format="dota",
    )
    assert [scene.labels.overlaps for scene in scenes] == [True, place == "inside", None]
    first, *others = label_issues(scenes)
    if place == "outside":
        assert "s1.txt: none of its labels lies in its scene" in first
        first, *others = others
    assert "no object is labelled in 1 of 3 scenes" in first and "s2.txt" in first
    assert not others


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_several_scenes_may_have_no_label_in_some(
    ship_scenes: None, tmp_path: Path, kind: str
) -> None:
    x, y = 500_000, 4_999_800
    shapes = [shapely.box(x + 1000 * i, y, x + 1000 * i + 30, y + 30) for i in range(2)]
    if kind == "density":
        shapes = [shape.centroid for shape in shapes]
    path = tmp_path / "all.gpkg"
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633").to_file(path)
    paths: Any = {"scenes": f"{tmp_path}/s*.tif", "labels": str(path)}
    if kind == "detect":
        scenes = open_annotated_scenes(**paths, classes=["ship"], options=AnnotationOptions())
    else:
        read = (
            partial(open_labels, classes=["background", "ship"])
            if kind == "segment"
            else partial(open_density_labels, objects="ship")
        )
        scenes = open_scenes(read, **paths)
    texts = label_issues(scenes)
    assert not any("none of its labels" in text for text in texts), texts


@pytest.mark.parametrize("kind", ["ignored", "ignored on request", "absent"])
def test_a_class_may_be_the_value_that_is_ignored_by_default(
    write_raster: Any, tmp_path: Path, kind: str
) -> None:
    """Masks of two classes often have the values 0 and 255."""
    rng = np.random.default_rng(0)
    for name in "ab":
        write_raster(f"s/{name}.tif", rng.integers(0, 255, (1, SIDE, SIDE)).astype("uint8"))
        mask = 255 * rng.integers(0, 2, (SIDE, SIDE)).astype("uint8")
        write_raster(f"l/{name}.tif", 0 * mask if kind == "absent" else mask)
    requested = [255] if kind == "ignored on request" else None
    scenes = open_scenes(
        partial(open_labels, classes=["land", "sea"], ignore_values=requested),
        scenes=f"{tmp_path}/s/*.tif",
        labels=f"{tmp_path}/l/{{stem}}.tif",
    )
    scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=SIDE)
    texts = [issue.text for issue in check_labels(scanned)]
    advice = (
        "; pixels of the value 255 have no label (data.ignore_values): if they are a class, map it "
        "with data.class_values"
    )
    for split, text in zip(("train", "val"), texts, strict=True):
        more = advice if kind == "ignored" else ""
        assert text == f"no pixel of sea in the {split} split{more}"
