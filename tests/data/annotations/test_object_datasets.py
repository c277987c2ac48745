"""Objects in the scan, in sampling and in window datasets, with small and with real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.config import parse_recipe
from geotune.config.split_options import ListSplitOptions
from geotune.data.annotations.annotated_scenes import uncounted_object_notes
from geotune.data.checks.scan import scan_scenes
from geotune.data.datamodule import build_datamodule
from geotune.data.raster.open_raster import open_raster
from geotune.data.scenes.scene import Scene
from geotune.data.splits.explicit import split_by_list
from geotune.data.window_datasets import FixedWindowDataset
from geotune.factory.build_data import build_data
from geotune.types import Batch
from helpers.annotation_files import upright, write_dota
from helpers.errors import raises

CLASSES = ["ship", "crane"]


@pytest.fixture
def splits(tmp_path: Path, write_raster: Any, opened: Callable[..., list[Scene]]) -> Any:
    """Scenes of 600 x 700 pixels: a has two ships and a crane, b has a ship, c has no objects."""
    objects = {
        "a": [
            upright(100, 100, 110, 110),
            upright(506, 200, 518, 210),
            upright(300, 588, 320, 608, name="crane"),
        ],
        "b": [upright(58, 58, 70, 70), upright(10, 10, 20, 20, difficult=True)],
        "c": [],
    }
    for name, things in objects.items():
        pixels = np.ones((1, 600, 700), dtype="uint8")
        pixels[:, :, :50] = 0
        raster = open_raster(write_raster(f"{name}.tif", pixels, nodata=0))
        write_dota(tmp_path / f"{name}.txt", raster, things, CLASSES)
    return split_by_list(opened("{stem}.txt"), ListSplitOptions(train=["a", "c"], val=["b"]))


def test_objects_are_counted_once_and_sampled(splits: Any) -> None:
    made = build_datamodule(
        splits, window=64, allow_overlap=True, samples=60, rare_class_fraction=1.0, brightness=0.0
    )
    assert made.label_unit == "object"
    assert made.class_counts == {"train": [2, 1], "val": [1, 0], "test": []}
    assert "no object of crane in the val split" in made.notes
    assert len(made.notes) == len(set(made.notes))
    drawn = [made.train[i] for i in range(60)]
    assert all(len(sample.target.boxes) for sample in drawn)
    assert {int(c) for sample in drawn for c in sample.target.classes} == {0, 1}
    # the grid contains all windows with data: 10 rows of 11, the first column partly empty
    assert len(made.val) == 110


def test_windows_without_objects_are_training_samples(splits: Any) -> None:
    made = build_datamodule(
        splits, window=64, allow_overlap=True, samples=30, rare_class_fraction=0.0, brightness=0.0
    )
    empty = [i for i in range(30) if not len(made.train[i].target.boxes)]
    assert empty
    batch = Batch.from_samples([made.train[i] for i in range(30)])
    assert len(batch.targets) == 30 and batch.targets[empty[0]]["boxes"].shape == (0, 4)


def test_fixed_windows_have_eight_orientations(splits: Any) -> None:
    made = build_datamodule(
        splits, window=64, allow_overlap=True, samples=4, rare_class_fraction=1.0
    )
    fixed = FixedWindowDataset(made.train)
    areas = []
    for orientation in range(8):
        boxes = fixed.sample(0, orientation).target.boxes
        areas.append(sorted(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).tolist()))
    assert all(actual == areas[0] for actual in areas)


def test_scan_blocks_do_not_cut_objects(splits: Any) -> None:
    result, _ = scan_scenes(splits["train"], 64)
    actual = {tuple(index) for indices in result.positions for index in indices.tolist()}
    assert actual == {(105, 105), (205, 512), (598, 310)}


def test_objects_cut_by_the_grid_are_noted(splits: Any) -> None:
    assert uncounted_object_notes(splits, 512) == []
    [note] = uncounted_object_notes(splits, 64)
    assert note.startswith("1 of 1 objects in the val split") and "64 pixels" in note


def test_scene_target_equals_that_of_one_window(splits: Any) -> None:
    scene = splits["train"][0]
    target = scene.read_target()
    assert target.valid.shape == (600, 700) and int(target.valid.sum()) == 600 * 650
    assert target.counted.tolist() == [True, True, True]


# ---------------------------------------------------------------- from a recipe
def _recipe(data: dict[str, Any], task: dict[str, Any], bands: Any) -> Any:
    return parse_recipe(
        {
            "backbone": {"name": "timm/test_vit", "pretrained": False, "bands": bands},
            "method": {"kind": "frozen"},
            "decoder": {"kind": "rotated_fcos" if task.get("boxes") == "oriented" else "fcos"},
            "task": {"kind": "detect", **task},
            "data": {"kind": "scenes", **data},
        }
    )


@pytest.mark.parametrize("boxes", ["horizontal", "oriented"])
def test_real_ships(shared_data: Path, boxes: str) -> None:
    recipe = _recipe(
        {
            "scenes": f"{shared_data}/ships/*.tif",
            "labels": f"{shared_data}/ships/{{stem}}.geojson",
            "split": {"kind": "group", "test": ["busan"], "val": ["durban"]},
        },
        {"classes": ["ship"], "boxes": boxes},
        ["B08"],
    )
    made = build_data(recipe)
    assert made.class_counts == {"train": [138], "val": [36], "test": [54]}  # 228
    assert sum(int(sample.target.counted.sum()) for sample in made.val) == 36
    sides = made.train[0].target.boxes.shape[1]
    assert sides == (5 if boxes == "oriented" else 4)


@pytest.mark.slow
def test_real_trees(shared_data: Path) -> None:
    folder = shared_data / "trees"
    data = {
        "scenes": f"{folder}/images/*.tif",
        "labels": f"{folder}/points/{{stem}}.csv",
        "point_size": "6 m",
        "window": 256,
        "split": {part: f"{folder}/{part}.txt" for part in ("train", "val", "test")}
        | {"kind": "list"},
    }
    with raises("labels-missing", mentions=["palm_springs_2020_57.csv"]):
        build_data(_recipe(data, {"classes": ["tree"]}, ["band1"]))
    made = build_data(
        _recipe({**data, "missing_labels": "empty"}, {"classes": ["tree"]}, ["band1"])
    )
    rows = [len(path.read_text().split()) - 1 for path in (folder / "points").glob("*.csv")]
    assert sum(rows) == 11_392
    assert made.class_counts == {"train": [6641], "val": [2070], "test": [2681]}
    assert len(made.val) == 43
