import os
import sys
import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from geotune.config.data_options import QualityOptions
from geotune.config.split_options import ListSplitOptions
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.find import find_files, find_scenes
from geotune.data.scenes.open_scenes import label_file, missed_images, open_rasters, open_scenes
from geotune.data.scenes.patterns import format_pattern, match_files
from geotune.data.scenes.quality import with_quality
from geotune.data.splits.explicit import split_by_list
from geotune.data.splits.groups import group_of
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
    for name in ("bands", "dates", "Scene", "1"):
        with raises("pattern-invalid", mentions=[f"{{{name}}}", "{band} or {date} or {scene}"]):
            match_files(f"{tmp_path}/{{{name}}}.tif")
    with raises("pattern-invalid", mentions=["{day}", "{region}"]):
        match_files(f"{tmp_path}/{{day}}.tif", fields=["region"])


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
    assert list(find_files(f"{tmp_path}/{{tile}}/a.tif")) == ["x", "y"]
    assert list(find_files(f"{tmp_path}/{{tile}}/{{name}}.tif")) == ["x_a", "y_a"]
    assert list(find_files(f"{tmp_path}/{{tile}}/*.tif")) == ["x_a", "y_a"]


@pytest.mark.parametrize(
    "labels", ["{tile}/masks/{name}.tif", "{tile}/masks/{stem}.tif", "{tile}/m*s/{name}.t?f"]
)
def test_fields_of_any_name_match_images_and_labels(
    tmp_path: Path, write_raster: Any, labels: str
) -> None:
    """Images of the same name in several folders, in a folder with brackets in its name."""
    root = tmp_path / "data [1]"
    for i, (tile, name) in enumerate([("Tile 1", "a"), ("Tile 1", "b"), ("Tile 2", "a")]):
        write_raster(f"data [1]/{tile}/images/{name}.tif", ONES)
        write_raster(f"data [1]/{tile}/masks/{name}.tif", ZEROS + i)
    scenes = open_scenes(
        partial(open_labels, classes=["x", "y", "z"]),
        scenes=f"{root}/{{tile}}/images/{{name}}.tif",
        labels=f"{root}/{labels}",
    )
    assert [scene.name for scene in scenes] == ["Tile 1_a", "Tile 1_b", "Tile 2_a"]
    masks: list[Any] = [scene.read_target() for scene in scenes]
    assert [mask.mask[0, 0] for mask in masks] == [0, 1, 2]
    assert [group_of(scene, "tile") for scene in scenes] == ["Tile 1", "Tile 1", "Tile 2"]
    options = QualityOptions(pattern=f"{root}/{{tile}}/masks/{{name}}.tif", values=[1])
    fields = {scene.name: scene.attributes for scene in scenes}
    masked = with_quality({scene.name: scene.raster for scene in scenes}, options, fields)
    blocks = [source.read_block(Window(0, 0, 6, 6)).valid.all() for source in masked.values()]
    assert blocks == [True, False, True]


def test_fields_of_bands_and_modalities(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{t}/{s}/p_{b}.tif" for t in "xy" for s in "uv" for b in ("B2", "B3")))
    found = find_scenes({s: f"{tmp_path}/{{tile}}/{s}/{{name}}_{{band}}.tif" for s in "uv"})
    assert list(found) == ["x_p", "y_p"]
    assert found["x_p"].fields == {"tile": "x", "name": "p", "stem": "p"}
    with raises("pattern-invalid", mentions=["{town}", "{tile}"]):
        label_file(f"{tmp_path}/{{town}}.tif", "x_p", found["x_p"].fields)


def test_names_match_in_any_unicode_form(tmp_path: Path, write_raster: Any) -> None:
    """`é` is one letter in the names that Linux writes, and two in those that macOS writes."""
    composed, separate = "Ré", unicodedata.normalize("NFD", "Ré")
    for folder, image, label in (("1", composed, separate), ("2", separate, composed)):
        root = tmp_path / folder / image
        write_raster(f"{folder}/{image}/{image}_{image}.tif", ONES)
        write_raster(f"{folder}/{image}/{label}_mask.tif", ZEROS)
        [scene] = open_scenes(
            partial(open_labels, classes=SHIPS),
            scenes=str(root / "{scene}_").replace(image, label) + f"{label}.tif",
            labels=str(root / "{scene}_mask.tif").replace(image, label),
        )
        assert scene.name == composed
        lists = ListSplitOptions(train=[label], val=["b"])
        splits = split_by_list([scene, replace(scene, name="b")], lists)
        assert [len(splits[split]) for split in ("train", "val")] == [1, 1]


def test_pattern_without_match_raises(tmp_path: Path) -> None:
    with raises("scenes-missing", key="data.scenes", mentions=["*.tif"]):
        find_files(f"{tmp_path}/*.tif")
    with raises("scenes-missing", key="data.scenes", mentions=["a.tif"]):
        find_files(f"{tmp_path}/a.tif")


@pytest.mark.parametrize(
    ("file", "pattern", "mentions"),
    [
        ("s/A.TIF", "s/*.tif", ["A.TIF", "case"]),
        ("s/A.SAFE.zip", "s/*.zip", ["A.SAFE.zip", "unpack the archive"]),
        ("s/A.SAFE.zip", "s/A.SAFE.zip", ["A.SAFE.zip", "unpack the archive"]),
        ("s/a.txt", "s/*", ["s/a.txt", ".tif"]),
        ("s/A.tif", "s/a.tif", ["A.tif", "case"]),
        ("s/a.tif", "s", ["is a folder", "s/*.tif"]),
        ("s/a.tif", "s/", ["is a folder", "s/*.tif"]),
        ("s/[a]_1.tif", "s/[a]_*.tif", ["[[]"]),
    ],
)
def test_a_pattern_without_match_is_explained(
    tmp_path: Path, file: str, pattern: str, mentions: list[str]
) -> None:
    _touch(tmp_path, file)
    with raises("scenes-missing", key="data.scenes", mentions=[pattern, *mentions]):
        find_files(f"{tmp_path}/{pattern}")


def test_files_of_the_system_are_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "a.tif", "._a.tif", ".ipynb_checkpoints/a-checkpoint.tif", "@eaDir/b.tif")
    _touch(tmp_path, "__MACOSX/c.tif", "__MACOSX/._a.tif", "d/lost+found/d.tif")
    for pattern in ("**/*.tif", "{scene}.tif", "*.tif"):
        assert find_files(f"{tmp_path}/{pattern}") == {"a": tmp_path / "a.tif"}
    assert list(find_files(f"{tmp_path}/__MACOSX/*.tif")) == ["c"]


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


def test_why_a_label_file_is_missing(tmp_path: Path, write_raster: Any) -> None:
    write_raster("s [1]/a.tif", ONES)
    write_raster("s [1]/l/A.TIF", ZEROS)
    for labels, mentions in (
        ("l", ["is a folder", "l/*.tif"]),
        ("l/{stem}.tif", ["l/A.TIF", "case"]),
        ("m/{stem}.tif", ["label file of scene a not found; check"]),
    ):
        with raises("labels-missing", key="data.labels", mentions=mentions):
            open_scenes(
                partial(open_labels, classes=SHIPS),
                scenes=f"{tmp_path}/s [1]/a.tif",
                labels=f"{tmp_path}/s [1]/{labels}",
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


def test_images_missed_by_case_are_reported(tmp_path: Path, write_raster: Any) -> None:
    for name in ("s/a.tif", "s/B.TIF", "l/a.tif", "s/20200101.tif", "s/note.TXT", "s/a_label.TIF"):
        write_raster(name, ZEROS) if name.lower().endswith("tif") else _touch(tmp_path, name)
    read = partial(open_labels, classes=SHIPS)
    for scenes in (f"{tmp_path}/s/a*.tif", [f"{tmp_path}/s/*.tif", f"{tmp_path}/s/*.TIF"]):
        assert not missed_images(
            scenes,
            open_scenes(
                read, scenes=f"{tmp_path}/s/a.tif", labels=f"{tmp_path}/s/{{stem}}_label.TIF"
            ),
        )
    opened = open_scenes(read, scenes=f"{tmp_path}/s/a.tif", labels=f"{tmp_path}/l/{{stem}}.tif")
    for pattern in (f"{tmp_path}/s/*.tif", {"S1": f"{tmp_path}/s/{{scene}}.tif"}):
        [issue] = missed_images(pattern, opened)
        assert issue.severity == "warning" and issue.key == "data.scenes"
        assert "2 images" in issue.text and "B.TIF" in issue.text and "a_label.TIF" in issue.text
    assert not missed_images(f"{tmp_path}/s/{{date}}.tif", opened)[2:]
    [issue] = missed_images([f"{tmp_path}/s/*.tif"], key=None)
    assert issue.text.startswith("scenes: 2 images match in another case") and issue.key is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    path.touch()
    for pattern in (f"{tmp_path}/*.tif", str(path)):
        with raises("file-unreadable", mentions=["caf\\xe9.tif"]):
            match_files(pattern)
