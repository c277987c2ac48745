"""Store of features by sample key, in memory or in memory-mapped files."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from geotune.errors import GeotuneError
from geotune.feature_cache.shards import Shard, read_shards, write_shard
from geotune.utils.atomic import write_atomically

MARKER_FILE = "geotune-cache.json"
"""Marks a folder as a cache of geotune."""
MANIFEST_FILE = "manifest.json"
"""In the folder of a feature set: what its features depend on."""


class FeatureStore:
    """Features of samples, each `{name: (h, w, C)}`.

    Worker processes that receive a copy map the files themselves.

    Args:
        folder: of the feature set; None stores everything in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._shards: list[Shard | None] = []  # None: in memory only
        self._rows: dict[str, tuple[int, int]] = {}
        self._loaded: dict[int, Mapping[str, Tensor]] = {}

    def open(self, keys: Collection[str]) -> list[str]:
        """Index the folder, and verify the shards that hold any of the keys.

        Damaged shards are removed; returns a note for each of them.
        """
        if self.folder is None:
            return []
        for leftover in self.folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        shards, unreadable = read_shards(self.folder)
        for sidecar in unreadable:
            sidecar.unlink(missing_ok=True)
        notes = [f"{path}: cannot be read; its samples are computed again" for path in unreadable]
        keys = frozenset(keys)
        used = [shard for shard in shards if not keys.isdisjoint(shard.samples)]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            faults = dict(zip(used, pool.map(Shard.verify, used), strict=True))
        for shard in shards:
            fault = faults.get(shard)
            if fault is None:
                self._index(shard, shard.samples)
                continue
            shard.remove()
            notes.append(
                f"{shard.path}: damaged ({fault}); its {len(shard.samples)} samples are computed "
                "again"
            )
        return notes

    def __contains__(self, sample: str) -> bool:
        return sample in self._rows

    def add(self, samples: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Store tensors `(samples, h, w, C)` as a shard.

        Raises `GeotuneError` if it cannot be written; earlier shards stay valid.
        """
        if self.folder is None:
            self._loaded[len(self._shards)] = tensors
            self._index(None, samples)
            return
        number = max((shard.number + 1 for shard in self._shards if shard), default=0)
        try:
            shard = write_shard(self.folder, number, samples, tensors)
        except OSError as error:
            raise GeotuneError(
                f"{self.folder}: cannot be written ({error.strerror}); existing features stay "
                "valid: free disk space, or move the folder and set train.cache_folder, then run "
                "the same command again",
                code="output-not-writable",
                key="train.cache_folder",
                file=self.folder,
            ) from error
        self._index(shard, samples)

    def read(self, sample: str) -> dict[str, Tensor]:
        """The features of a sample. Raises `KeyError` if they are missing."""
        number, row = self._rows[sample]
        tensors = self._loaded.get(number)
        if tensors is None:
            shard = self._shards[number]
            assert shard is not None
            tensors = self._loaded[number] = shard.load()
        return {name: tensor[row] for name, tensor in tensors.items()}

    def _index(self, shard: Shard | None, samples: Sequence[str]) -> None:
        for row, sample in enumerate(samples):
            self._rows[sample] = len(self._shards), row
        self._shards.append(shard)

    def __getstate__(self) -> dict[str, Any]:
        loaded = self._loaded if self.folder is None else {}
        return {**self.__dict__, "_loaded": loaded}


def prepare_folder(root: Path, name: str, dependencies: Mapping[str, Any]) -> Path:
    """Create the folder of a feature set in a cache folder, if needed.

    Raises `GeotuneError` if `root` has other content or cannot be written.
    """
    is_cache = (root / MARKER_FILE).is_file() or not root.exists()
    if not is_cache and (not root.is_dir() or any(root.iterdir())):
        raise GeotuneError(
            f"{root}: exists and is not a cache of geotune; choose another train.cache_folder",
            code="folder-not-owned",
            key="train.cache_folder",
            file=root,
        )
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (root / MARKER_FILE).is_file():
            text = json.dumps({"about": "features that geotune computed; may be deleted"})
            write_atomically(root / MARKER_FILE, text.encode())
        manifest = json.dumps(dependencies, indent=2, default=str)
        if (
            not (folder / MANIFEST_FILE).is_file()
            or (folder / MANIFEST_FILE).read_text() != manifest
        ):
            write_atomically(folder / MANIFEST_FILE, manifest.encode())
    except OSError as error:
        raise GeotuneError(
            f"{root}: cannot be written ({error.strerror}); choose another train.cache_folder",
            code="output-not-writable",
            key="train.cache_folder",
            file=root,
        ) from error
    return folder


@contextmanager
def folder_lock(folder: Path | None) -> Iterator[None]:
    """Lock a folder for writing; waits while another process holds the lock."""
    if folder is None:
        yield
        return
    with (folder / ".lock").open("w") as file:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
