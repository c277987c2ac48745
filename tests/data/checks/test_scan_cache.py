"""Unchanged files are read once; changed ones, and their sidecars, are read again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.data.checks import scan as scan_module
from geotune.data.checks.scan import SceneScan, scan_scenes
from geotune.data.checks.scan_cache import FileStats, ScanCache, decode, encode
from geotune.data.labels.open_labels import open_labels
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.scene import Scene

CLASSES = ["water", "wood"]


@pytest.fixture
def folder(write_raster: Any, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_raster(f"{name}.tif", rng.normal(0, 1, (3, 24, 20)).astype("float32"))
        write_raster(f"l/{name}.tif", rng.integers(0, 2, (24, 20)).astype("uint8"))
    return tmp_path


def scenes_in(folder: Path) -> list[Scene]:
    return open_scenes(
        partial(open_labels, classes=CLASSES),
        scenes=f"{folder}/*.tif",
        labels=f"{folder}/l/{{stem}}.tif",
    )


def assert_equal(one: SceneScan | None, other: SceneScan | None) -> None:
    assert one is not None and other is not None
    for name, value in vars(one).items():
        found = getattr(other, name)
        assert type(found) is type(value), name
        np.testing.assert_equal(found, value)


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scenes that are read."""
    names: list[str] = []
    scan_scene = scan_module.scan_scene

    def counted(scene: Scene, *args: Any) -> SceneScan:
        names.append(scene.name)
        return scan_scene(scene, *args)

    monkeypatch.setattr(scan_module, "scan_scene", counted)
    return names


def scan(folder: Path, window: int = 8, **options: Any) -> tuple[list[SceneScan | None], int]:
    with closing(ScanCache(folder / "cache" / "scans.sqlite", **options)) as store:
        return scan_scenes(scenes_in(folder), window, store=store, threads=1), store.hits


def test_second_scan_reads_nothing_and_is_equal(folder: Path, count_reads: list[str]) -> None:
    first, hits = scan(folder)
    assert hits == 0 and sorted(count_reads) == ["a", "b"]
    second, hits = scan(folder)
    assert hits == 2 and len(count_reads) == 2
    for one, other in zip(first, second, strict=True):
        assert_equal(one, other)
    scan(folder, reread=True)
    assert len(count_reads) == 4


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: touch(folder / "a.tif"),
        lambda folder: touch(folder / "l" / "a.tif"),
        lambda folder: (folder / "a.tif.aux.xml").write_text("<PAMDataset/>"),
    ],
    ids=["image", "label", "sidecar"],
)
def test_changed_file_is_read_again(
    folder: Path, count_reads: list[str], change: Callable[[Path], object]
) -> None:
    scan(folder)
    change(folder)
    scan(folder)
    assert count_reads[2:] == ["a"]


def test_source_of_a_vrt_is_read_again(
    folder: Path, count_reads: list[str], tmp_path: Path
) -> None:
    from rasterio.shutil import copy

    sources = tmp_path / "sources"
    sources.mkdir()
    shutil.move(folder / "a.tif", sources / "s.tif")
    copy(sources / "s.tif", folder / "a.vrt", driver="VRT")
    (folder / "b.tif").unlink()

    def scan_vrt() -> int:
        with closing(ScanCache(folder / "cache" / "scans.sqlite")) as store:
            scenes = open_scenes(
                partial(open_labels, classes=CLASSES),
                scenes=f"{folder}/*.vrt",
                labels=f"{folder}/l/{{stem}}.tif",
            )
            scan_scenes(scenes, 8, store=store, threads=1)
            return store.hits

    assert scan_vrt() == 0 and scan_vrt() == 1
    touch(sources / "s.tif")
    assert scan_vrt() == 0


def test_other_options_and_classes_are_other_results(folder: Path, count_reads: list[str]) -> None:
    scan(folder)
    scan(folder, window=12)
    assert len(count_reads) == 4


def test_other_processes_find_the_results(folder: Path) -> None:
    scan(folder)
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_scan_cache import scan
print(scan(Path({str(folder)!r}))[1])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "2"


@pytest.mark.parametrize("damage", ["text", "folder", "rows"])
def test_damaged_cache_is_ignored(folder: Path, count_reads: list[str], damage: str) -> None:
    path = folder / "cache" / "scans.sqlite"
    if damage == "folder":
        path.mkdir(parents=True)
    else:
        scan(folder)
        if damage == "text":
            for file in path.parent.iterdir():
                file.write_text("not a database")
        else:
            import sqlite3

            with closing(sqlite3.connect(path)) as database, database:
                database.execute("UPDATE scans SET scan = ?", (b"\x08\0\0\0\0\0\0\0{}",))
    count_reads.clear()
    result, hits = scan(folder)
    assert hits == 0 and sorted(count_reads) == ["a", "b"] and None not in result


def test_errors_are_not_stored(folder: Path, write_raster: Any, count_reads: list[str]) -> None:
    from geotune.data.issues import ErrorCollector

    write_raster("l/a.tif", np.full((24, 20), 9, "uint8"))  # no class
    for _ in range(2):
        errors = ErrorCollector(keep=True)
        with closing(ScanCache(folder / "cache" / "scans.sqlite")) as store:
            result = scan_scenes(scenes_in(folder), 8, store=store, threads=1, errors=errors)
        assert result[0] is None and errors.scenes == ["a"]
    assert count_reads == ["a", "b", "a"]


def test_encoding_restores_every_field(folder: Path) -> None:
    [one, _], _ = scan(folder)
    assert one is not None
    assert_equal(one, decode(encode(one)))


def test_a_missing_label_file_is_no_fault_of_the_cache(folder: Path) -> None:
    """Scenes without objects may have none."""
    with pytest.raises(FileNotFoundError):
        FileStats().of(folder / "l" / "c.csv")
