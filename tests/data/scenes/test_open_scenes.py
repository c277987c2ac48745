from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import box

from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.find import find_files
from geotune.data.scenes.open_scenes import open_rasters, open_scenes
from geotune.data.scenes.patterns import format_pattern, match_files
from helpers.errors import raises

ONES = np.ones((1, 6, 6), dtype="uint8")
ZEROS = np.zeros((6, 6), dtype="uint8")
SHIPS = ["background", "ship"]


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_fields_of_matches(tmp_path: Path) -> None:
    _touch(tmp_path, "a_b/a_b_B02.tif", "a_b/a_b_B03.tif", "c/c_B02.tif", "c/x_B02.tif")
    result = match_files(f"{tmp_path}/{{scene}}/{{scene}}_{{band}}.tif")
    assert [match.fields for match in result] == [
        {"band": "B02", "scene": "a_b"},
        {"band": "B03", "scene": "a_b"},
        {"band": "B02", "scene": "c"},
    ]
    assert match_files(f"{tmp_path}/**/x_B02.tif")[0].path == tmp_path / "c" / "x_B02.tif"
    with raises("pattern-invalid", mentions=["{day}", "{band} or {date} or {scene}"]):
        match_files(f"{tmp_path}/{{day}}.tif")


def test_band_names_disambiguate_fields(tmp_path: Path) -> None:
    _touch(tmp_path, "x_B02_10m.tif")
    assert match_files(f"{tmp_path}/{{scene}}_{{band}}.tif", ["B02_10m"])[0].fields["scene"] == "x"


def test_format_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "a[1]_mask_v1.tif")
    assert format_pattern(f"{tmp_path}/{{stem}}.tif", {"stem": "x"}) == [tmp_path / "x.tif"]
    assert format_pattern(f"{tmp_path}/{{stem}}_mask_*.tif", {"stem": "a[1]"}) == [
        tmp_path / "a[1]_mask_v1.tif"
    ]
    with raises("pattern-invalid", mentions=["{name}", "{stem}"]):
        format_pattern("{name}.tif", {"stem": "x"})


def test_one_file_per_scene(tmp_path: Path) -> None:
    _touch(tmp_path, "a.tif", "b.tif", "a.geojson", "a.tif.aux.xml")
    assert find_files(f"{tmp_path}/*") == {"a": tmp_path / "a.tif", "b": tmp_path / "b.tif"}
    assert list(find_files([f"{tmp_path}/b.tif", f"{tmp_path}/*.tif"])) == ["b", "a"]


def test_one_file_per_band(tmp_path: Path) -> None:
    _touch(tmp_path, "one/B02.tif", "one/B03.tif", "two/B02.tif", "two/B03.tif", "x_B02_v1.tif")
    by_folder = find_files(f"{tmp_path}/*/{{band}}.tif")
    assert {name: sorted(files) for name, files in by_folder.items()} == {  # type: ignore[arg-type]
        "one": ["B02", "B03"],
        "two": ["B02", "B03"],
    }
    assert list(find_files(f"{tmp_path}/one/{{band}}.tif")) == ["one"]
    assert list(find_files(f"{tmp_path}/{{scene}}/{{band}}.tif")) == ["one", "two"]
    assert list(find_files(f"{tmp_path}/*_{{band}}_v1.tif")) == ["x__v1"]


def test_one_folder_per_band(tmp_path: Path) -> None:
    _touch(tmp_path, "B02/a.tif", "B03/a.tif", "B02/b.tif", "B03/b.tif")
    result = find_files(f"{tmp_path}/{{band}}/*.tif")
    assert {name: sorted(files) for name, files in result.items()} == {  # type: ignore[arg-type]
        "a": ["B02", "B03"],
        "b": ["B02", "B03"],
    }


def test_scenes_with_the_same_name_raise(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.tif", "y/a.tif")
    with raises("scene-duplicate", file=tmp_path / "y/a.tif", mentions=["x/a.tif"]):
        find_files(f"{tmp_path}/*/a.tif")
    assert list(find_files(f"{tmp_path}/{{scene}}/a.tif")) == ["x", "y"]


def test_pattern_without_match_raises(tmp_path: Path) -> None:
    with raises("scenes-missing", key="data.scenes", mentions=["*.tif"]):
        find_files(f"{tmp_path}/*.tif")
    with raises("scenes-missing", key="data.scenes", mentions=["a.tif"]):
        find_files(f"{tmp_path}/a.tif")


def test_band_without_file_raises(write_raster: Any) -> None:
    path = write_raster("B02.tif", ONES)
    with raises("band-missing", key="backbone.bands", mentions=["B11", "B02"]):
        open_rasters(f"{path.parent}/{{band}}.tif", wanted_bands=["B02", "B11"])


def test_label_files_of_other_scenes_are_not_scenes(tmp_path: Path, write_raster: Any) -> None:
    for name in "ab":
        write_raster(f"{name}.tif", ONES)
        write_raster(f"{name}_mask.tif", ZEROS)
    scenes = open_scenes(
        partial(open_labels, classes=SHIPS),
        scenes=f"{tmp_path}/*.tif",
        labels=f"{tmp_path}/{{stem}}_mask.tif",
    )
    assert [(s.name, s.labels.path.name) for s in scenes] == [
        ("a", "a_mask.tif"),
        ("b", "b_mask.tif"),
    ]


def test_missing_label_files_raise(tmp_path: Path, write_raster: Any) -> None:
    for name in "abc":
        write_raster(f"{name}.tif", ONES)
    write_raster("l/a.tif", ZEROS)
    with raises("labels-missing", key="data.labels", file=tmp_path / "l/b.tif", mentions=["for c"]):
        open_scenes(
            partial(open_labels, classes=SHIPS),
            scenes=f"{tmp_path}/*.tif",
            labels=f"{tmp_path}/l/{{stem}}.tif",
        )


def test_nodata_is_not_labelled(tmp_path: Path, write_raster: Any) -> None:
    image = np.ones((2, 6, 6), dtype="uint8")
    image[:, 0, 0] = 0
    image[0, 1, 1] = 0
    write_raster("a.tif", image)
    write_raster("l/a.tif", ZEROS)
    [scene] = open_scenes(
        partial(open_labels, classes=SHIPS),
        scenes=f"{tmp_path}/a.tif",
        labels=f"{tmp_path}/l/{{scene}}.tif",
        nodata=0,
    )
    pixels, target = scene.read(Window(0, 0, 6, 6))
    assert np.isnan(pixels).sum() == 3
    assert np.argwhere(target.mask == 255).tolist() == [[0, 0]]


def test_labels_outside_all_scenes_raise(
    tmp_path: Path, write_raster: Any, write_polygons: Any
) -> None:
    for name in "ab":
        write_raster(f"{name}.tif", ONES)
        write_polygons(f"{name}.gpkg", [box(100, 100, 110, 110)])
    options: Any = dict(scenes=f"{tmp_path}/*.tif", labels=f"{tmp_path}/{{stem}}.gpkg")
    with raises("labels-outside", file=tmp_path / "a.gpkg", mentions=["a.tif"]):
        open_scenes(partial(open_labels, classes=SHIPS), **options)
    write_polygons("b.gpkg", [box(1, 1, 3, 3)])
    assert [
        scene.labels.overlaps
        for scene in open_scenes(partial(open_labels, classes=SHIPS), **options)
    ] == [False, True]


def test_one_label_file_for_all_scenes(
    tmp_path: Path, write_raster: Any, write_polygons: Any
) -> None:
    from rasterio.transform import from_origin

    write_raster("a.tif", ONES)
    write_raster("b.tif", ONES, transform=from_origin(500_100, 5_000_000, 10, 10))
    write_polygons("all.gpkg", [box(0, 0, 2, 2), box(12, 0, 14, 2)])
    scenes = open_scenes(
        partial(open_labels, classes=SHIPS),
        scenes=f"{tmp_path}/*.tif",
        labels=f"{tmp_path}/all.gpkg",
    )
    result = [np.argwhere(s.labels.read(Window(0, 0, 6, 6)).mask == 1)[0].tolist() for s in scenes]
    assert result == [[0, 0], [0, 2]]


def test_inconsistent_bands_raise(tmp_path: Path, write_raster: Any) -> None:
    write_raster("a.tif", ONES, bands=["red"])
    write_raster("b.tif", ONES, bands=["nir"])
    for name in "ab":
        write_raster(f"l/{name}.tif", ZEROS)
    with raises("bands-inconsistent", file=tmp_path / "b.tif", mentions=["red", "nir"]):
        open_scenes(
            partial(open_labels, classes=SHIPS),
            scenes=f"{tmp_path}/*.tif",
            labels=f"{tmp_path}/l/{{stem}}.tif",
        )
