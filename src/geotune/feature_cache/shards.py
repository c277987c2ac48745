"""Files of features: a shard is some samples in `<number>.safetensors`, with a card beside it.

The card, `<number>.json`, names the samples and holds the checksum. It is written last, so that a
shard without one was never finished.
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
    """A finished shard.

    Attributes:
        path: of the tensors, each `(samples, h, w, C)`.
        samples: names, in the order of the rows.
    """

    path: Path
    samples: tuple[str, ...]
    bytes: int
    checksum: str

    @property
    def number(self) -> int:
        """Shards of a set are numbered from 0."""
        return int(self.path.stem)

    @property
    def sidecar(self) -> Path:
        """The file that says what is in it."""
        return self.path.with_suffix(".json")

    def verify(self) -> str | None:
        """What is wrong with the file, if anything. Reads all of it."""
        try:
            size = self.path.stat().st_size
            if size != self.bytes:
                return f"has {size} bytes, expected {self.bytes}"
            with self.path.open("rb") as file:
                found = hashlib.file_digest(
                    file, lambda: hashlib.blake2b(digest_size=16)
                ).hexdigest()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if found != self.checksum:
            return f"has the checksum {found[:12]}, expected {self.checksum[:12]}"
        return None

    def load(self) -> dict[str, Tensor]:
        """The tensors, mapped into memory: only what is read of them takes any."""
        return load_file(self.path)

    def remove(self) -> None:
        """Delete both files; the card first, so that the shard is never one that is not whole."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def write_shard(
    folder: Path, number: int, samples: Sequence[str], tensors: Mapping[str, Tensor]
) -> Shard:
    """Write tensors `(samples, h, w, C)`. Raises `OSError` where the disk does not take them."""
    data = save(dict(tensors))
    checksum = hashlib.blake2b(data, digest_size=16).hexdigest()
    shard = Shard(folder / f"{number:05}.safetensors", tuple(samples), len(data), checksum)
    write_atomically(shard.path, data)
    card = {"samples": list(samples), "bytes": len(data), "checksum": checksum}
    try:
        write_atomically(shard.sidecar, json.dumps(card).encode())
    except OSError:
        shard.path.unlink()
        raise
    return shard


def read_shards(folder: Path) -> tuple[list[Shard], list[Path]]:
    """The finished shards of a folder by number, and the cards that cannot be read."""
    shards, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        if not path.stem.isdecimal():
            continue
        try:
            card = json.loads(path.read_bytes())
            names = tuple(str(name) for name in card["samples"])
            size, checksum = int(card["bytes"]), str(card["checksum"])
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(path)
            continue
        shards.append(Shard(path.with_suffix(".safetensors"), names, size, checksum))
    return shards, damaged
