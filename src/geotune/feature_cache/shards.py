"""Shards: several samples in `<number>.safetensors`, with a sidecar `<number>.json`.

The sidecar lists the samples and the checksum. It is written last, so a shard without a sidecar is
incomplete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class Shard:
    """A complete shard.

    Attributes:
        path: of the tensors, each `(samples, h, w, C)`.
        samples: keys, in the order of the rows.
        bytes: size of the file.
        checksum: BLAKE2b of the file.
    """

    path: Path
    samples: tuple[str, ...]
    bytes: int
    checksum: str

    @property
    def number(self) -> int:
        """Index in the feature set, from 0."""
        return int(self.path.stem)

    @property
    def sidecar(self) -> Path:
        """The JSON file with keys and checksum."""
        return self.path.with_suffix(".json")

    def verify(self) -> str | None:
        """Compare size and checksum of the file; describes the damage, None if there is none."""
        try:
            size = self.path.stat().st_size
            if size != self.bytes:
                return f"has {size} bytes, expected {self.bytes}"
            with self.path.open("rb") as file:
                checksum = hashlib.file_digest(
                    file, lambda: hashlib.blake2b(digest_size=16)
                ).hexdigest()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if checksum != self.checksum:
            return f"has checksum {checksum[:12]}, expected {self.checksum[:12]}"
        return None

    def load(self) -> dict[str, Tensor]:
        """The memory-mapped tensors."""
        return load_file(self.path)

    def remove(self) -> None:
        """Delete both files; the sidecar first, so that no shard looks complete without tensors."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def write_shard(
    folder: Path, number: int, samples: Sequence[str], tensors: Mapping[str, Tensor]
) -> Shard:
    """Write tensors `(samples, h, w, C)`. Raises `OSError` if that fails."""
    data = save(dict(tensors))
    checksum = hashlib.blake2b(data, digest_size=16).hexdigest()
    shard = Shard(folder / f"{number:05}.safetensors", tuple(samples), len(data), checksum)
    write_atomically(shard.path, data)
    sidecar = {"samples": list(samples), "bytes": len(data), "checksum": checksum}
    try:
        write_atomically(shard.sidecar, json.dumps(sidecar).encode())
    except OSError:
        shard.path.unlink()
        raise
    return shard


def read_shards(folder: Path) -> tuple[list[Shard], list[Path]]:
    """The complete shards of a folder in order, and the sidecars that cannot be read."""
    shards, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        if not path.stem.isdecimal():
            continue
        try:
            sidecar = json.loads(path.read_bytes())
            keys = tuple(str(key) for key in sidecar["samples"])
            size, checksum = int(sidecar["bytes"]), str(sidecar["checksum"])
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(path)
            continue
        shards.append(Shard(path.with_suffix(".safetensors"), keys, size, checksum))
    return shards, damaged
