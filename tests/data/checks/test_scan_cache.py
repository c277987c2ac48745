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
from geotune.data.checks.scan_cache import (
    FileStats,
    ScanCache,
    decode,
    default_path,
    encode,
)
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


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("kind", ["image", "label"])
def test_other_file_of_the_same_size_and_time_is_read_again(
    folder: Path, write_raster: Any, count_reads: list[str], kind: str, link: bool
) -> None:
    """As `cp -p`, archives and links to another version of a data set leave it."""
    path = folder / "a.tif" if kind == "image" else folder / "l" / "a.tif"
    if link:
        path.rename(folder / "v1")
        path.symlink_to(folder / "v1")
    stat = path.stat()
    scan(folder)
    shape, dtype = ((3, 24, 20), "float32") if kind == "image" else ((24, 20), "uint8")
    other = write_raster("v2/a.tif", np.zeros(shape, dtype))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert other.stat().st_size == stat.st_size
    if link:
        path.unlink()
        path.symlink_to(other)
    else:
        shutil.copy2(other, path)
    [found, _], _ = scan(folder)
    assert count_reads[2:] == ["a"]
    assert found is not None
    values = found.maxima if kind == "image" else found.class_counts[1:]
    np.testing.assert_array_equal(values, np.zeros_like(values))


def test_only_the_sidecars_of_a_file_belong_to_it(tmp_path: Path) -> None:
    own = {"t.1.tif", "t.1.tif.aux.xml", "t.1.tfw"}
    for name in (*own, "t.2.tif", "t.2.tfw", "t.tif", "t.11.tif", "u.1.tif", "bare", "bare.hdr"):
        (tmp_path / name).write_text("")
    stats = FileStats()
    assert {name for name, *_ in stats.of(tmp_path / "t.1.tif")} == own
    assert {name for name, *_ in stats.of(tmp_path / "bare")} == {"bare", "bare.hdr"}


def test_broken_link_in_the_folder_of_a_scene(folder: Path) -> None:
    (folder / "old.txt").symlink_to(folder / "nothing")
    scan(folder)
    assert scan(folder)[1] == 2


def test_user_without_a_home_folder_has_no_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("GEOTUNE_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert default_path() is None
    with closing(ScanCache(default_path())) as store:
        assert None not in scan_scenes(scenes_in(folder), 8, store=store, threads=1)
    monkeypatch.setenv("GEOTUNE_CACHE", str(folder))
    assert default_path() == folder / "scans.sqlite"


def test_other_code_reads_again(
    folder: Path, count_reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed reader of labels has another result, whatever its version number."""
    scan(folder)
    monkeypatch.setattr("geotune.data.checks.scan_cache.code_hash", lambda: "other")
    scan(folder)
    assert sorted(count_reads[2:]) == ["a", "b"]


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
                database.execute("UPDATE results SET value = ?", (b"\x08\0\0\0\0\0\0\0{}",))
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
