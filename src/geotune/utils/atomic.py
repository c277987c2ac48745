"""Write files atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_to_disk(path: Path) -> None:
    """Wait until the content of a file is stored, so that a power failure cannot truncate it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which then replaces `path`.

    Readers of `path` see either the old or the complete new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield incomplete
        sync_to_disk(incomplete)
        incomplete.replace(path)
    finally:
        incomplete.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; readers see either the old or the complete new file."""
    with replacing(path) as incomplete:
        incomplete.write_bytes(data)
