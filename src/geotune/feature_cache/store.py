"""Features by the names of their samples, in memory or in files that are mapped into it."""

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
"""Stands in a folder of caches and says that it is one."""
MANIFEST_FILE = "manifest.json"
"""Stands in the folder of a set and says what its features depend on."""


class FeatureStore:
    """Samples' features, each `{name: (h, w, C)}`.

    It can be sent to other processes; those map the files anew.

    Args:
        folder: of the set; None keeps everything in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._shards: list[Shard | None] = []  # None: in memory alone
        self._rows: dict[str, tuple[int, int]] = {}
        self._loaded: dict[int, Mapping[str, Tensor]] = {}

    def open(self, wanted: Collection[str]) -> list[str]:
        """Find what is in the folder. Shards that hold anything `wanted` are read and checked.

        What is damaged is removed. Returns a sentence for each such shard.
        """
        if self.folder is None:
            return []
        for leftover in self.folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        shards, unreadable = read_shards(self.folder)
        for card in unreadable:
            card.unlink(missing_ok=True)
        notes = [f"{card}: cannot be read; its samples are computed again" for card in unreadable]
        wanted = frozenset(wanted)
        used = [shard for shard in shards if not wanted.isdisjoint(shard.samples)]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            faults = dict(zip(used, pool.map(Shard.verify, used), strict=True))
        for shard in shards:
            fault = faults.get(shard)
            if fault is None:
                self._index(shard, shard.samples)
                continue
            shard.remove()
            notes.append(
                f"{shard.path}: {fault}; it was damaged, and its {len(shard.samples)} samples are "
                "computed again"
            )
        return notes

    def __contains__(self, sample: str) -> bool:
        return sample in self._rows

    def add(self, samples: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors `(samples, h, w, C)` as a shard.

        Raises `GeotuneError` where the disk is full or cannot be written; all earlier shards stay.
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
                f"{self.folder}: cannot be written ({error.strerror}); what is there stays valid: "
                "make room, or move the folder and set train.cache_folder, and run the same "
                "command again"
            ) from error
        self._index(shard, samples)

    def read(self, sample: str) -> dict[str, Tensor]:
        """A sample's features. Raises `KeyError` where they are not there."""
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


def prepare_folder(root: Path, name: str, about: Mapping[str, Any]) -> Path:
    """The folder of a set under a folder of caches; both are made where they are not there.

    Raises `GeotuneError` where `root` holds something else, and where it cannot be written.
    """
    ours = (root / MARKER_FILE).is_file() or not root.exists()
    if not ours and (not root.is_dir() or any(root.iterdir())):
        raise GeotuneError(
            f"{root}: is there and is no cache of geotune; choose another train.cache_folder"
        )
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (root / MARKER_FILE).is_file():
            text = json.dumps({"about": "features that geotune computed; may be deleted"})
            write_atomically(root / MARKER_FILE, text.encode())
        manifest = json.dumps(about, indent=2, default=str)
        if (
            not (folder / MANIFEST_FILE).is_file()
            or (folder / MANIFEST_FILE).read_text() != manifest
        ):
            write_atomically(folder / MANIFEST_FILE, manifest.encode())
    except OSError as error:
        raise GeotuneError(
            f"{root}: cannot be written ({error.strerror}); choose another train.cache_folder"
        ) from error
    return folder


@contextmanager
def exclusive_folder(folder: Path | None) -> Iterator[None]:
    """While it is open, no other process writes into the folder; the others wait."""
    if folder is None:
        yield
        return
    with (folder / ".lock").open("w") as file:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
