"""Files that change or are damaged between two calls, or while a map is computed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from geotune.mapping.map_scenes import map_scenes
from helpers.corrupt_files import break_block
from helpers.errors import raises

pytestmark = pytest.mark.usefixtures("workers_here")


@pytest.fixture(scope="module")
def run(untrained: Callable[..., Path]) -> Path:
    return untrained()


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "scenes"))


def mapped(run: Path, scenes: str | Path, out: Path, **options: Any) -> Any:
    return map_scenes(run, scenes, out, tile=64, device="cpu", qgis=False, **options)


def class_map(out: Path, scene: str) -> Any:
    with rasterio.open(out / "scenes" / f"{scene}_classes.tif") as file:
        return file.read(1)


def replace_content(path: Path, content: bytes) -> None:
    """Write a file without a change of its modification time, as a copy from a backup."""
    state = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_tile_that_could_be_computed_later_is_in_the_files(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    scene, out = folder / "b.tif", tmp_path / "map"
    whole, state = scene.read_bytes(), scene.stat()
    break_block(scene, 2)
    os.utime(scene, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert len(mapped(run, scene, out).failed) == 3
    replace_content(scene, whole)
    result = mapped(run, scene, out)
    mapped(run, scene, tmp_path / "whole")
    assert not result.failed and not result.notes
    np.testing.assert_array_equal(class_map(out, "b"), class_map(tmp_path / "whole", "b"))


def test_an_image_that_could_be_read_later_is_in_the_table(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    run = untrained(
        {
            "task": {"kind": "classify", "classes": ["x", "y"]},
            "decoder": {"kind": "global_pool"},
            "data": {"kind": "images", "images": "i", "window": 32, "split": {"kind": "random"}},
        }
    )
    for name, row in (("one", 60), ("two", 90)):
        with rasterio.open(scenes / "a.tif") as file:
            profile = {**file.profile, "height": 32, "width": 32}
            pixels = file.read(window=Window(60, row, 32, 32))
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as small:
            small.write(pixels)
            small.descriptions = ("red", "green", "nir")
    image = tmp_path / "two.tif"
    whole, state = image.read_bytes(), image.stat()
    break_block(image, 0)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    first = mapped(run, str(tmp_path / "*.tif"), tmp_path / "map")
    assert [each.scene for each in first.failed] == ["two"]
    replace_content(image, whole)
    assert not mapped(run, str(tmp_path / "*.tif"), tmp_path / "map").failed
    table = (tmp_path / "map" / "scenes" / "images.csv").read_text()
    assert [row["image"] for row in csv.DictReader(table.splitlines())] == ["one", "two"]


def test_a_scene_that_changes_while_it_is_mapped_leaves_no_tile(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    scene, out = folder / "a.tif", tmp_path / "map"
    whole, state = scene.read_bytes(), scene.stat()

    def change(phase: str, done: int, *_: Any) -> None:
        if phase == "tiles" and done == 4:
            with rasterio.open(scene, "r+") as file:
                file.write(np.full((3, 150, 130), 7, np.float32))

    with raises("file-missing", file=scene):
        mapped(run, scene, out, on_progress=change)
    done = {path.name for path in (out / "tiles" / "a").glob("*.tif")}
    assert len(done) == 4
    scene.write_bytes(whole)
    os.utime(scene, ns=(state.st_atime_ns, state.st_mtime_ns))
    mapped(run, scene, out)
    mapped(run, scene, tmp_path / "whole")
    np.testing.assert_array_equal(class_map(out, "a"), class_map(tmp_path / "whole", "a"))


def test_a_changed_source_of_a_vrt_is_a_changed_scene(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    with rasterio.open(folder / "a.tif") as file:
        rasterio.shutil.copy(file, folder / "inner.vrt", driver="VRT")
    with rasterio.open(folder / "inner.vrt") as file:
        rasterio.shutil.copy(file, folder / "outer.vrt", driver="VRT")
    mapped(run, folder / "outer.vrt", tmp_path / "map", shard="0/99")
    (folder / "outer.vrt.aux.xml").write_text("<PAMDataset></PAMDataset>")  # of QGIS
    mapped(run, folder / "outer.vrt", tmp_path / "map", shard="1/99")
    os.utime(folder / "a.tif", ns=(0, 0))
    with raises("map-exists", mentions=["outer is changed"]):
        mapped(run, folder / "outer.vrt", tmp_path / "map")


def test_a_changed_quality_mask_is_a_changed_scene(
    untrained: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    run = untrained({"data.quality": {"pattern": "{stem}_mask.tif", "values": [3]}})
    with rasterio.open(folder / "a.tif") as file:
        grid = {"crs": file.crs, "transform": file.transform, "height": 150, "width": 130}
    mask = tmp_path / "a_mask.tif"
    with rasterio.open(mask, "w", driver="GTiff", count=1, dtype="uint8", **grid) as file:
        file.write(np.full((1, 150, 130), 3, np.uint8))
    quality = str(tmp_path / "{stem}_mask.tif")
    mapped(run, folder / "a.tif", tmp_path / "map", quality=quality)
    assert (class_map(tmp_path / "map", "a") == 255).all()
    os.utime(mask, ns=(0, 0))
    with raises("map-exists", mentions=["a is changed"]):
        mapped(run, folder / "a.tif", tmp_path / "map", quality=quality)


def test_damaged_records_and_exchanged_tiles_are_made_again(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map"
    mapped(run, folder / "a.tif", out)
    expected, record = class_map(out, "a"), out / "written" / "a.json"
    record.write_bytes(record.read_bytes()[:100])
    for suffix in (".tif", ".json"):
        shutil.copy(out / f"tiles/a/64_64{suffix}", out / f"tiles/a/0_64{suffix}")
    mapped(run, folder / "a.tif", out)
    np.testing.assert_array_equal(class_map(out, "a"), expected)
    assert json.loads(record.read_text())["scene"] == "a"


def test_scenes_are_written_by_one_command_at_a_time(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    mapped(run, folder / "a.tif", tmp_path / "map")
    code = (
        "import sys; from pathlib import Path; from geotune.training.lock import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "map" / "locks" / "all")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin and other.stdout and other.stdout.readline()
        with raises("run-in-use", key="--out"):
            mapped(run, folder / "a.tif", tmp_path / "map", combine=True)
        other.stdin.write(b"\n")
