"""Hashes of geotune's own code, for caches of what it computes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hash_code(*names: str) -> str:
    """A hash of modules of the package (`model.py`) and of all modules in its folders (`data`)."""
    root = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for path in (root / name for name in names):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(module.read_text(encoding="utf-8").encode())
    return digest.hexdigest()
