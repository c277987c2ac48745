"""`manifest.json`: sizes and SHA-256 hashes of the files that `geotune push` uploads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geotune.errors import GeotuneError
from geotune.utils.atomic import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """What a file must be.

    Attributes:
        size: in bytes.
        sha256: as hexadecimal digits.
    """

    size: int
    sha256: str


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write the manifest of files in a folder."""
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
        for name in sorted(names)
    }
    text = json.dumps({"format": FORMAT, "files": files}, indent=2)
    write_atomically(folder / MANIFEST, text.encode())


def read_manifest(path: Path, source: str) -> dict[str, FileEntry]:
    """Read a manifest. Raises `GeotuneError` that names `source` if it is none of this version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"found format {values['format']!r}, expected {FORMAT}")
        entries = {}
        for name, entry in values["files"].items():
            size, digest = entry["size"], entry["sha256"]
            if type(size) is not int or size < 0 or not isinstance(digest, str):
                raise ValueError(f"{name} has no size and sha256")
            entries[str(name)] = FileEntry(size, digest)
        return entries
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GeotuneError(
            f"{source}: {MANIFEST} cannot be read ({type(error).__name__}: {error}); push it with "
            "geotune push, or use the geotune version that pushed it",
            code="hub-invalid",
            file=path,
        ) from error


def check_file(path: Path, entry: FileEntry, source: str) -> None:
    """Raise `GeotuneError` if a file is not the one of the manifest."""
    size = path.stat().st_size
    digest = file_hash(path) if size == entry.size else ""
    if digest != entry.sha256:
        found = f"hash {digest[:12]}" if digest else f"{size} bytes"
        expected = entry.sha256[:12] if digest else f"{entry.size} bytes"
        raise GeotuneError(
            f"{source}: {path.name} has {found}, expected {expected} as in {MANIFEST}; delete "
            f"{path} to download it again, or ask its author to push it again",
            code="hub-invalid",
            file=path,
        )
