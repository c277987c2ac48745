"""Results of earlier scans, so that unchanged files are read only once.

A result is found again if the scene (its files, bands, labels, georeference, ...), the options of
the scan, geotune's code and the version of GDAL are the same, and no file changed its size or a
time: that of its last modification, and that at which the file itself changed or took this place.
The cache is an SQLite file in the user's cache folder. It holds numbers only: arrays in the format
of safetensors, and JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from safetensors import SafetensorError
from safetensors.numpy import load, save

from geotune.data.checks.scan import SceneScan
from geotune.data.raster.io import disk_path, open_dataset
from geotune.data.scenes.scene import Scene
from geotune.utils.code_hash import hash_code

MAX_AGE = 90 * 86400
"""Seconds after which an unused result is removed."""


def default_path() -> Path | None:
    """`scans.sqlite` in the folder `GEOTUNE_CACHE`, by default `~/.cache/geotune`.

    None for a user without a home folder, as in some containers.
    """
    if folder := os.environ.get("GEOTUNE_CACHE"):
        return Path(folder) / "scans.sqlite"
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(root) / "geotune" / "scans.sqlite"


@cache
def code_hash() -> str:
    """Identifies the code that reads scenes: geotune's, rasterio's and GDAL's."""
    code = hash_code("data", "boxes", "datasets")
    return f"{code} {rasterio.__version__} {rasterio.__gdal_version__}"


class ScanCache:
    """Stores scans by key; thread-safe, and shared by processes.

    A cache that cannot be read or written is not used: nothing depends on it but time.

    Args:
        path: the SQLite file; None for no cache.
        reread: find nothing, so that all files are read again.

    Attributes:
        hits: number of results that were found.
    """

    def __init__(self, path: Path | None, *, reread: bool = False) -> None:
        self.hits = 0
        self._reread = reread
        self._lock = Lock()
        self._stats = FileStats()
        self._database: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=10, check_same_thread=False)
            self._database.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
                "CREATE TABLE IF NOT EXISTS scans"
                " (key TEXT PRIMARY KEY, used REAL NOT NULL, scan BLOB NOT NULL);"
            )
        except (OSError, sqlite3.Error):
            self._database = None

    def key(self, scene: Scene, *options: object) -> str | None:
        """The key of a scan of `scene`; None if a file cannot be examined."""
        try:
            files = [self._stats.of(path) for path in sorted(_paths(scene))]
            described = pickle.dumps((scene, files, options, code_hash()))
        except (OSError, pickle.PicklingError, TypeError, AttributeError):
            return None
        return hashlib.sha256(described).hexdigest()

    def get(self, key: str | None) -> SceneScan | None:
        """The stored scan."""
        if key is None or self._reread or self._database is None:
            return None
        try:
            with self._lock, self._database as database:
                query = "UPDATE scans SET used = ? WHERE key = ? RETURNING scan"
                row = database.execute(query, (time.time(), key)).fetchone()
            scan = None if row is None else decode(row[0])
        except (sqlite3.Error, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with self._lock:
            self.hits += scan is not None
        return scan

    def put(self, key: str | None, scan: SceneScan) -> None:
        """Store a scan."""
        if key is None or self._database is None:
            return
        try:
            with self._lock, self._database as database:
                query = "INSERT OR REPLACE INTO scans VALUES (?, ?, ?)"
                database.execute(query, (key, time.time(), encode(scan)))
        except sqlite3.Error:
            return

    def close(self) -> None:
        """Remove results that were not used for a long time."""
        if self._database is not None:
            try:
                with self._database as database:
                    database.execute("DELETE FROM scans WHERE used < ?", (time.time() - MAX_AGE,))
            except sqlite3.Error:
                pass
            self._database.close()


Stat = tuple[str, int, int, int]
"""Name, size, and the times at which the content and the file changed.

A file that replaces another one, also through a link, may have its size and modification time
(`cp -p`, archives), but not its change time.
"""


class FileStats:
    """Sizes and times of files and of their sidecars; reads each folder once."""

    def __init__(self) -> None:
        self._folder = cache(_list_folder)

    def of(self, path: Path) -> list[Stat]:
        """Of all files with the stem of `path`, and of the files that a VRT refers to.

        Raises `OSError` for a missing file.
        """
        path = disk_path(path)
        stats = self._folder(path.parent).get(path.stem, [])
        if path.name not in {name for name, *_ in stats}:
            raise FileNotFoundError(path)
        if path.suffix.lower() == ".vrt":
            sources = [Path(name) for name in open_dataset(path).files if Path(name) != path]
            return [*stats, *(stat for source in sources for stat in self.of(source))]
        return stats


def _list_folder(folder: Path) -> Mapping[str, list[Stat]]:
    """The files in a folder by their names up to each dot, without broken links."""
    stats: dict[str, list[Stat]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                stat = entry.stat()
            except OSError:
                continue
            described = (entry.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            parts = entry.name.split(".")
            for prefix in {".".join(parts[:n]) for n in range(1, len(parts) + 1)}:
                stats.setdefault(prefix, []).append(described)
    return stats


def _paths(value: object) -> set[Path]:
    """All paths in nested dataclasses and collections."""
    if isinstance(value, Path):
        return {value}
    parts: Iterable[object] = ()
    if is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, tuple | list):
        parts = value
    return {path for part in parts for path in _paths(part)}


def encode(scan: SceneScan) -> bytes:
    """A scan as safetensors with a JSON header."""
    values = dict(vars(scan))
    positions = values.pop("positions")
    arrays = {f"positions.{i}": x.astype(np.int32) for i, x in enumerate(positions)}
    for name, value in tuple(values.items()):
        if isinstance(value, np.ndarray):
            arrays[name] = np.ascontiguousarray(values.pop(name))
    return save(arrays, metadata={"scan": json.dumps(values)})


def decode(data: bytes) -> SceneScan:
    """The inverse of `encode`. Raises errors of many types for damaged data."""
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["scan"])
    arrays: dict[str, Any] = load(data)
    positions: list[Any] = []
    while (name := f"positions.{len(positions)}") in arrays:
        positions.append(arrays.pop(name).astype(np.int64))
    others = {name: _as_tuples(value) for name, value in values.items()}
    return SceneScan(**others, **arrays, positions=tuple(positions))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
