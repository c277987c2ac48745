"""Paths as they come from other systems and tools."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from collections.abc import Callable
from pathlib import Path, PurePath

from geotune.errors import GeotuneError

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archives and operating systems leave; hidden ones have names such as `._a.tif`."""


def is_system_file(path: PurePath) -> bool:
    """Whether a relative path is one that operating systems and tools leave beside data."""
    return any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.parts)


def files_below(folder: Path, is_leaf: Callable[[Path], bool] = lambda path: False) -> list[Path]:
    """The files in a folder and its subfolders, also linked ones, sorted.

    A folder that several paths lead to is read once, by its path without a link if there is one.
    Folders for which `is_leaf` is true are listed as files are; unreadable ones are passed over.
    """
    found: list[Path] = []
    done: set[str] = set()
    pending = deque([folder])
    while pending:
        here = pending.popleft()
        real = os.path.realpath(here)
        if real in done or not os.access(real, os.R_OK | os.X_OK):
            continue
        done.add(real)
        with os.scandir(here) as entries:
            for entry in entries:
                path = here / entry.name
                if entry.is_symlink() and not path.exists():  # also a link to itself
                    continue
                if entry.is_file() or (entry.is_dir() and is_leaf(path)):
                    found.append(path)
                elif entry.is_dir() and entry.is_symlink():
                    pending.append(path)  # after the folders without a link
                elif entry.is_dir():
                    pending.appendleft(path)
    return sorted(found)


def ogr_path(path: Path) -> str:
    """The name of a local file for pyogrio, which reads a path as an address, cut at `;` and `!`.

    Raises `GeotuneError` for a path with `!`, which cannot be escaped.
    """
    text = str(path.absolute())
    if "!" in text:
        raise GeotuneError(
            f"{path}: files of shapes cannot be read or written at a path with '!'; rename the "
            "file or folder, or choose another",
            code="file-access",
            file=path,
        )
    return f"file://{text}" if ";" in text else text


def existing_path(path: Path) -> Path:
    """The path, or the existing one whose name is the same text in another Unicode normal form."""
    if path.exists() or str(path).isascii() or path.parent == path:
        return path
    parent = existing_path(path.parent)
    for form in ("NFC", "NFD"):
        other = parent / unicodedata.normalize(form, path.name)
        if other.exists():
            return other
    return path
