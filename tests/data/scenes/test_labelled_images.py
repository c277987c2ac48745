"""Images with one label each: folders by class, CSVs, and invalid ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.config.split_options import ColumnSplitOptions, RandomSplitOptions
from geotune.data.checks.scan import label_statistics, scan_scenes
from geotune.data.datamodule import build_datamodule
from geotune.data.labels.targets import ImageClass, ImageClasses, ImageValue
from geotune.data.scenes.labelled_images import open_images, unread_images
from geotune.data.splits.explicit import split_by_column
from geotune.data.splits.groups import split_at_random
from helpers.errors import raises

CLASSES = ["forest", "river"]


@pytest.fixture
def folder(tmp_path: Path, write_raster: Callable[..., Path]) -> Path:
    """Three images of forest and two of river in EuroSAT's layout."""
    rng = np.random.default_rng(0)
    for name, count in (("forest", 3), ("river", 2)):
        for i in range(count):
            image = rng.integers(1, 200, (2, 12, 12 + i)).astype("uint8")
            write_raster(f"images/{name}/{name}_{i}.tif", image, bands=["red", "nir"])
    return tmp_path / "images"


def test_images_beside_the_folders_of_the_classes_are_reported(
    folder: Path, write_raster: Callable[..., Path]
) -> None:
    assert unread_images(folder, None) == []
    path = write_raster("images/forest_9.tif", np.ones((2, 12, 12), "uint8"))
    assert len(open_images(images=folder, classes=CLASSES)) == 5
    [issue] = unread_images(folder, None)
    assert (issue.severity, issue.key, issue.file) == ("warning", "data.images", path)
    assert "1 image beside" in issue.text and "forest_9.tif" in issue.text
    assert unread_images(folder, folder.parent / "labels.csv") == []


def table(folder: Path, text: str) -> Path:
    path = folder.parent / "labels.csv"
    path.write_text(text)
    return path


def test_one_folder_per_class(folder: Path) -> None:
    (folder / "readme.txt").write_text("mine")
    result = open_images(images=folder, classes=CLASSES)
    assert [scene.name for scene in result] == [
        "forest/forest_0", "forest/forest_1", "forest/forest_2", "river/river_0", "river/river_1",
    ]  # fmt: skip
    targets = [scene.labels.target for scene in result]  # type: ignore[attr-defined]
    assert targets == [ImageClass(0)] * 3 + [ImageClass(1)] * 2
    assert ImageClass.stack(targets).tolist() == [0, 0, 0, 1, 1]


def test_files_of_the_system_are_no_images_or_classes(folder: Path) -> None:
    for name in ("._forest_0.tif", ".ipynb_checkpoints/forest_0.tif", "@eaDir/forest_0.tif"):
        for parent in (folder, folder / "forest"):
            (parent / name).parent.mkdir(exist_ok=True)
            (parent / name).write_bytes(b"junk")
    (folder / "__MACOSX" / "forest").mkdir(parents=True)
    assert len(open_images(images=folder, classes=CLASSES)) == 5


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_in_any_unicode_form(
    tmp_path: Path, write_raster: Callable[..., Path], forms: tuple[Any, Any]
) -> None:
    on_disk, in_text = (unicodedata.normalize(form, "forêt") for form in forms)
    image = np.random.default_rng(0).integers(1, 200, (2, 12, 12)).astype("uint8")
    for name in (on_disk, "river"):
        write_raster(f"images/{name}/{name}.tif", image, bands=["red", "nir"])
    folder = tmp_path / "images"
    rows = [f"{in_text}/{in_text}.tif,{in_text},{in_text};river", "river/river.tif,river,river"]
    listed = table(folder, "\n".join(["path,label,labels", *rows]))
    for classes in ([in_text, "river"], [on_disk, "river"]):
        for result in (
            open_images(images=folder, classes=classes),
            open_images(images=folder, classes=classes, labels=listed),
        ):
            targets = [scene.labels.target for scene in result]  # type: ignore[attr-defined]
            assert targets == [ImageClass(0), ImageClass(1)]
            assert result[0].name == unicodedata.normalize("NFC", "forêt/forêt")
        several = open_images(images=folder, classes=classes, labels=listed, column="labels")
        assert several[0].labels.target.present.all()  # type: ignore[attr-defined]


def test_classes_named_by_numbers_are_matched_as_numbers(
    tmp_path: Path, write_raster: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        write_raster(f"images/{name}.tif", rng.integers(1, 200, (2, 12, 12)).astype("uint8"))
    folder = tmp_path / "images"
    for rows in ("a.tif,1.0\nb.tif,2.0", "a.tif,01\nb.tif,2"):
        listed = table(folder, f"path,label\n{rows}")
        for classes, expected in ((["1", "2"], [0, 1]), (["2", "1"], [1, 0])):
            result = open_images(images=folder, classes=classes, labels=listed)
            targets = [scene.labels.target for scene in result]  # type: ignore[attr-defined]
            assert targets == [*map(ImageClass, expected)]


def test_csv_with_classes_numbers_and_splits(folder: Path) -> None:
    names = [f"{c}/{c}_{i}.tif" for c, n in (("forest", 3), ("river", 2)) for i in range(n)]
    one = table(folder, "path,label,split\n" + "\n".join(
        f"{n},{n.split('/')[0]},{p}"
        for n, p in zip(names, ["train", "val", "TEST", "train", ""], strict=True)
    ))  # fmt: skip
    result = open_images(images=folder, classes=CLASSES, labels=one)
    assert [scene.split for scene in result] == ["train", "val", "test", "train", None]
    several = table(folder, "\ufeffpath,labels\n" + "\n".join(
        f"{n},{label}" for n, label in zip(names, ["forest", "forest; river", "", "river", "river"],
                                         strict=True)
    ))  # fmt: skip
    result = open_images(images=folder, classes=CLASSES, labels=several, column="labels")
    stacked = ImageClasses.stack([scene.labels.target for scene in result])  # type: ignore[attr-defined]
    assert stacked.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]]
    value = table(folder, "value,path\n" + "\n".join(f"{i}.5,{n}" for i, n in enumerate(names)))
    result = open_images(images=folder, classes=["height"], labels=value, column="value")
    assert [scene.labels.target for scene in result] == [ImageValue(i + 0.5) for i in range(5)]  # type: ignore[attr-defined]
    mean, std = label_statistics(scan_scenes(result, 16)) or (0, 0)
    assert (mean, std) == pytest.approx((2.5, np.std(np.arange(5))))


@pytest.mark.parametrize(
    ("text", "column", "code", "mentions"),
    [
        ("path,kind\na,b\n", "label", "column-missing", ["label", "path, kind"]),
        ("name,value\na,b\n", "value", "column-missing", ["path", "name, value"]),
        ("path,label\n", "label", "scenes-missing", ["labels.csv"]),
        ("path,label\ngone.tif,forest\n", "label", "file-missing", ["line 2", "gone.tif"]),
        ("path,label\n,forest\n", "label", "file-missing", ["line 2"]),
        (
            "path,label\n{0},forst\n",
            "label",
            "class-unknown",
            ["line 2", "'forst'", "mean forest?"],
        ),
        ("path,label\n{0},\n", "label", "class-unknown", ["line 2", "''"]),
        ("path,label\n{0},forest\n{1},forest\n", "label", "class-empty", ["river"]),
        ("path,label\n{0},forest\n{0},river\n", "label", "scene-duplicate", ["line 3", "forest_0"]),
        ("path,labels\n{0},forest;sea\n", "labels", "class-unknown", ["line 2", "'sea'"]),
        ("path,value\n{0},high\n", "value", "label-value", ["line 2", "'high'"]),
        ("path,value\n{0},nan\n", "value", "label-value", ["line 2", "'nan'"]),
        ("path,label,split\n{0},forest,dev\n", "label", "row-invalid", ["line 2", "'dev'"]),
    ],
)
def test_invalid_csv_raises_with_its_line(
    folder: Path, text: str, column: str, code: str, mentions: list[str]
) -> None:
    path = table(folder, text.format("forest/forest_0.tif", "forest/forest_1.tif"))
    classes = CLASSES if column != "value" else ["height"]
    with raises(code, mentions=mentions):
        open_images(images=folder, classes=classes, labels=path, column=column)


def test_invalid_folders_raise(folder: Path, tmp_path: Path) -> None:
    with raises("file-missing", key="data.images", file=tmp_path / "nowhere"):
        open_images(images=tmp_path / "nowhere", classes=CLASSES)
    with raises("class-unknown", key="task.classes", mentions=["'river'"]):
        open_images(images=folder, classes=["forest", "lake"])
    with raises("class-empty", key="task.classes", mentions=["lake"]):
        open_images(images=folder, classes=[*CLASSES, "lake"])
    with raises("labels-missing", key="data.labels", mentions=["path and labels"]):
        open_images(images=folder, classes=CLASSES, column="labels")
    (folder / "lake").mkdir()
    with raises("scenes-missing", file=folder / "lake"):
        open_images(images=folder, classes=[*CLASSES, "lake"])


# ---------------------------------------------------------------- windows
def test_each_image_is_one_window_and_counts_once(
    folder: Path, write_raster: Callable[..., Path]
) -> None:
    """Also one that is larger than the blocks in which scenes are read."""
    large = np.ones((2, 600, 700), dtype="uint8") + np.arange(2, dtype="uint8")[:, None, None]
    large[:, ::7] = 9
    write_raster("images/forest/large.tif", large, bands=["red", "nir"])
    empty = np.zeros((2, 8, 8), dtype="uint8")
    write_raster("images/forest/empty.tif", empty, bands=["red", "nir"], nodata=0)
    result = open_images(images=folder, classes=CLASSES)
    parts = split_at_random(result, RandomSplitOptions(val=0.3, test=0.0, seed=1))
    made = build_datamodule(parts, window=None, allow_overlap=True)
    assert made.window == 700 and made.label_unit == "image"
    assert np.sum([made.class_counts[part] for part in ("train", "val")], axis=0).tolist() == [4, 2]
    assert len(made.val) == len(made.val.scenes) - any("empty" in s.name for s in made.val.scenes)
    assert any("empty.tif: no pixel has data" in note for note in made.notes)
    sample = made.train[0]
    assert sample.image.shape == (2, 700, 700) and isinstance(sample.target, ImageClass)


def test_window_smaller_than_an_image_raises(folder: Path) -> None:
    result = open_images(images=folder, classes=CLASSES)
    with raises("window-too-small", key="data.window", mentions=["forest_2.tif", "12x14", 13]):
        build_datamodule(split_at_random(result, RandomSplitOptions(val=0.3, test=0.0)), window=13)


def test_split_by_column_without_one_raises(folder: Path) -> None:
    with raises("split-unassigned", mentions=["forest/forest_0"]):
        split_by_column(open_images(images=folder, classes=CLASSES), ColumnSplitOptions())


def test_image_targets_are_invariant_to_orientation(folder: Path) -> None:
    target: Any
    for target in (ImageClass(1), ImageClasses(np.array([True, False])), ImageValue(2.0)):
        assert target.rotate90_flip(3) is target and target.masked(np.eye(2, dtype=bool)) is target
        unseen = target.masked(np.zeros((2, 2), dtype=bool))
        assert not unseen.has_labels and not list(unseen.class_positions())
        assert target.has_labels
        assert target.label_mask(np.eye(2, dtype=bool)).sum() == 2
        assert [where.tolist() for _, where in target.class_positions()] == [[0]]
