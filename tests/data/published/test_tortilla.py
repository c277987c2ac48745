"""Unpacking the tortillas of GEO-Bench-2."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geotune.data.published.tortilla import unpack_tortilla
from helpers.errors import raises
from helpers.published_datasets import write

pytest.importorskip("pyarrow", reason="reads and writes tortillas")
from helpers.tortilla import content, pack, parquet, sample


def tif(tmp_path: Path, value: int) -> bytes:
    return content(write(tmp_path / "scratch.tif", np.full((1, 4, 4), value, "uint8")))


def test_images_are_numbered_and_labels_belong_to_the_chosen_image(tmp_path: Path) -> None:
    samples = [
        sample(
            f"s{i}",
            split,
            [("GTiff", tif(tmp_path, 10 * i)), ("GTiff", tif(tmp_path, 10 * i + 1))],
            species_labels=classes,
        )
        for i, (split, classes) in enumerate([("train", ["Abies", "Acer"]), ("validation", [])])
    ]
    parts = [tmp_path / f"x.{i}.part.tortilla" for i in range(2)]
    for path, each in zip(parts, samples, strict=True):
        path.write_bytes(pack([each]))
    progress: list[tuple[int, int]] = []
    out = tmp_path / "out"
    count = unpack_tortilla(parts, out, image=1, on_progress=lambda *n: progress.append(n))
    assert count == 2 and progress == [(1, 2), (2, 2)]
    with rasterio.open(out / "validation/s1/1.tif") as file:
        assert (file.read() == 11).all()
    with (out / "labels.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["path", "labels", "split"],
            ["train/s0/1.tif", "Abies;Acer", "train"],
            ["validation/s1/1.tif", "", "val"],
        ]
    assert not (out / "annotations.json").exists()


def test_boxes_become_one_coco_file(tmp_path: Path) -> None:
    box = {"label": "a bird", "xmin": 1, "ymin": 2, "xmax": 5, "ymax": 9}
    boxes = [[box, {**box, "label": "another"}], [{**box, "label": "another"}]]
    samples = [
        sample(f"s{i}", "train", [("GTiff", tif(tmp_path, i)), ("GeoParquet", parquet(each))])
        for i, each in enumerate(boxes)
    ]
    (tmp_path / "x.tortilla").write_bytes(pack(samples))
    unpack_tortilla([tmp_path / "x.tortilla"], tmp_path / "out")
    coco = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["train/s0/0.tif", "train/s1/0.tif"]
    assert [category["name"] for category in coco["categories"]] == ["a bird", "another"]
    found = [(a["image_id"], a["category_id"], a["bbox"]) for a in coco["annotations"]]
    assert found == [(1, 1, [1, 2, 4, 7]), (1, 2, [1, 2, 4, 7]), (2, 2, [1, 2, 4, 7])]


@pytest.mark.parametrize(
    ("damage", "mentions"),
    [
        (lambda data: data[:-10], ["of"]),
        (lambda data: b"PK" + data[2:], ["no tortilla at byte 0"]),
        (lambda data: data[:150], ["bytes"]),
        (lambda data: data[:10], ["bytes 0 to 18 of 10"]),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, damage: Any, mentions: list[str]) -> None:
    path = tmp_path / "x.tortilla"
    path.write_bytes(damage(pack([sample("s", "train", [("GTiff", tif(tmp_path, 1))])])))
    with raises("file-unreadable", file=path, mentions=mentions):
        unpack_tortilla([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "split", "kind"),
    [("../s", "train", "GTiff"), ("s", "extra", "GTiff"), ("s", "train", "HDF5")],
)
def test_unsafe_or_unknown_sample_is_refused(
    tmp_path: Path, name: str, split: str, kind: str
) -> None:
    path = tmp_path / "x.tortilla"
    path.write_bytes(pack([sample(name, split, [(kind, tif(tmp_path, 1))])]))
    with raises("file-unreadable", file=path):
        unpack_tortilla([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tortilla"
    with raises("file-missing", file=path):
        unpack_tortilla([path], tmp_path / "out")


def test_command_unpacks(tmp_path: Path, geotune: Any) -> None:
    path = tmp_path / "x.tortilla"
    path.write_bytes(pack([sample("s", "test", [("GTiff", tif(tmp_path, 7))], labels=["a"])]))
    code, _, err = geotune("unpack", tmp_path / "out", path, "--image", "0")
    assert code == 0 and "1 sample" in err
    assert (tmp_path / "out/labels.csv").read_text().splitlines()[1] == "test/s/0.tif,a,test"
    code, _, err = geotune("unpack", tmp_path / "out")
    assert code == 1 and "no .tortilla file given" in err
