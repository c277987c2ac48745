"""Paths as they come from other systems and tools."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePath

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archives and operating systems leave; hidden ones have names such as `._a.tif`."""


def is_system_file(path: PurePath) -> bool:
    """Whether a relative path is one that operating systems and tools leave beside data."""
    return any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.parts)


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
