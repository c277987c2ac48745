"""Headers and scans of earlier runs, so that unchanged files are read only once.

A header is found again if its file did not change; a scan, if the scene (its files, bands, labels,
georeference, ...) and the options of the scan are the same, and no file changed. Both need the same
code of geotune and version of GDAL. A file changed if its size or a time did: that of its last
modification, or that at which the file itself changed or took this place. The cache is an SQLite
file in the user's cache folder. It holds numbers and texts only: arrays in the format of
safetensors, and JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import CRSError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from geotune.data.checks.scan import SceneScan
from geotune.data.raster.header import RasterHeader
from geotune.data.raster.io import disk_path, open_dataset
from geotune.data.scenes.scene import Scene
from geotune.utils.code_hash import hash_code
from geotune.utils.file_stat import describe_stat

MAX_AGE = 90 * 86400
"""Seconds after which an unused result is removed."""

MAX_UNWRITTEN = 256
"""Results that are written at once; those that a killed run did not write are read again."""


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
    """Stores headers and scans; thread-safe, and shared by processes.

    A cache that cannot be read or written is not used: nothing depends on it but time.

    Args:
        path: the SQLite file; None for no cache.
        reread: find nothing, so that all files are read again.

    Attributes:
        hits: number of scans that were found.
    """

    def __init__(self, path: Path | None, *, reread: bool = False) -> None:
        self.hits = 0
        self._reread = reread
        self._lock = Lock()
        self._stats = FileStats()
        self._used: list[tuple[float, str]] = []
        self._new: list[tuple[str, float, bytes]] = []
        self._database: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=10, check_same_thread=False)
            self._database.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; DROP TABLE IF EXISTS scans;"
                "CREATE TABLE IF NOT EXISTS results"
                " (key TEXT PRIMARY KEY, used REAL NOT NULL, value BLOB NOT NULL);"
            )
        except (OSError, sqlite3.Error):
            self._database = None

    def get_header(self, path: Path) -> RasterHeader | None:
        """The stored header of a file; None if it, a file beside it or one it refers to changed."""
        value = self._get(self._header_key(path))
        if value is None:
            return None
        try:
            stored = json.loads(value)
            if _stats_of_others(path, stored["files"]) != stored["stats"]:
                return None
            return RasterHeader.from_json(stored["header"])
        except (OSError, ValueError, KeyError, TypeError, CRSError):
            return None

    def put_header(self, path: Path, header: RasterHeader, files: Sequence[str]) -> None:
        """Store the header of `path`, which GDAL read from `files`."""
        key, values = self._header_key(path), header.to_json()
        if key is None or values is None:
            return
        try:
            stored = {"files": files, "stats": _stats_of_others(path, files), "header": values}
        except OSError:
            return
        self._put(key, json.dumps(stored).encode())

    def _header_key(self, path: Path) -> str | None:
        try:
            described = json.dumps([str(path), self._stats.beside(path), code_hash()])
        except OSError:
            return None
        return hashlib.sha256(described.encode()).hexdigest()

    def key(self, scene: Scene, *options: object) -> str | None:
        """The key of a scan of `scene`; None if a file cannot be examined."""
        try:
            described, paths = describe((scene, options, code_hash()))
            files = [self._stats.of(path) for path in sorted(paths)]
        except (OSError, pickle.PicklingError, TypeError, AttributeError):
            return None
        return hashlib.sha256(described + json.dumps(files).encode()).hexdigest()

    def get(self, key: str | None) -> SceneScan | None:
        """The stored scan."""
        value = self._get(key)
        try:
            scan = None if value is None else decode(value)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with self._lock:
            self.hits += scan is not None
        return scan

    def put(self, key: str | None, scan: SceneScan) -> None:
        """Store a scan."""
        if key is not None:
            self._put(key, encode(scan))

    def _get(self, key: str | None) -> bytes | None:
        if key is None or self._reread or self._database is None:
            return None
        try:
            with self._lock:
                query = "SELECT value FROM results WHERE key = ?"
                row = self._database.execute(query, (key,)).fetchone()
                if row is None:
                    return None
                self._used.append((time.time(), key))
        except sqlite3.Error:
            return None
        value: bytes = row[0]
        return value

    def _put(self, key: str, value: bytes) -> None:
        with self._lock:
            self._new.append((key, time.time(), value))
            if len(self._new) >= MAX_UNWRITTEN:
                self._write()

    def _write(self) -> None:
        """Write what is new, and when what was found was used."""
        if self._database is not None:
            try:
                with self._database as database:
                    database.executemany(
                        "INSERT OR REPLACE INTO results VALUES (?, ?, ?)", self._new
                    )
                    database.executemany("UPDATE results SET used = ? WHERE key = ?", self._used)
            except sqlite3.Error:
                pass
        self._new, self._used = [], []

    def close(self) -> None:
        """Write what is new, and remove results that were not used for a long time."""
        self._write()
        if self._database is not None:
            try:
                with self._database as database:
                    database.execute("DELETE FROM results WHERE used < ?", (time.time() - MAX_AGE,))
            except sqlite3.Error:
                pass
            self._database.close()


def _stats_of_others(path: Path, files: Sequence[str]) -> list[list[object]]:
    """Stats of the files that `path` refers to, such as the sources of a VRT."""
    others = (Path(name) for name in files if name != str(path))
    return [[str(other), *describe_stat(other.stat())] for other in others if other.exists()]


Stat = tuple[str, int, int, int]
"""Name, size, and the times at which the content and the file changed."""


class FileStats:
    """Names, sizes and times of files and of their sidecars; reads each folder once."""

    def __init__(self) -> None:
        self._folder = cache(_list_folder)

    def beside(self, path: Path) -> list[Stat]:
        """Of all files with the stem of `path`. Raises `OSError` for a missing file."""
        path = disk_path(path)
        stats = self._folder(path.parent).get(path.stem, [])
        if path.name not in {name for name, *_ in stats}:
            raise FileNotFoundError(path)
        return stats

    def of(self, path: Path) -> list[Stat]:
        """As `beside`, and of the files that a VRT refers to."""
        stats = self.beside(path)
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
            described = (entry.name, *describe_stat(stat))
            parts = entry.name.split(".")
            for prefix in {".".join(parts[:n]) for n in range(1, len(parts) + 1)}:
                stats.setdefault(prefix, []).append(described)
    return stats


class _PathPickler(pickle.Pickler):
    """Pickles values without their identities, and collects the paths in them."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.paths: set[Path] = set()
        self.fast = True  # equal values are equal bytes, whether they are one object or two

    def persistent_id(self, value: object) -> str | None:
        """Paths as text."""
        if not isinstance(value, Path):
            return None
        self.paths.add(value)
        return str(value)


def describe(value: object) -> tuple[bytes, set[Path]]:
    """A value as bytes, equal for equal values, and all paths in it."""
    pickler = _PathPickler(file := BytesIO())
    pickler.dump(value)
    return file.getvalue(), pickler.paths


def encode(scan: SceneScan) -> bytes:
    """A scan as safetensors with a JSON header."""
    values = dict(vars(scan))
    positions = values["positions"]
    values["positions"] = list(map(len, positions))
    arrays = {"positions": np.concatenate(positions).astype(np.int32)} if positions else {}
    for name, value in tuple(values.items()):
        if isinstance(value, np.ndarray):
            arrays[name] = np.ascontiguousarray(values.pop(name))
    return save(arrays, metadata={"scan": json.dumps(values)})


def decode(data: bytes) -> SceneScan:
    """The inverse of `encode`. Raises errors of many types for damaged data."""
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["scan"])
    arrays: dict[str, Any] = load(data)
    if lengths := values.pop("positions"):
        ends = np.cumsum(lengths)[:-1]
        positions = np.split(arrays.pop("positions").astype(np.int64), ends)
    else:
        positions = []
    others = {name: _as_tuples(value) for name, value in values.items()}
    return SceneScan(**others, **arrays, positions=tuple(positions))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
