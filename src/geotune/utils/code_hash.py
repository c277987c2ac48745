"""Which version of geotune's own code computed a result or a cache."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def hash_code(*names: str) -> str:
    """A hash of modules of the package (`model.py`) and of all modules in its folders (`data`)."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (ROOT / name for name in names):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(module.read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def training_code() -> str:
    """A short hash of the code that a training may run: no commands, pages or comparisons."""
    others = {"__main__.py", "bench", "cli", "inference", "info.py", "report", "terratorch"}
    names = [p.name for p in sorted(ROOT.iterdir()) if p.is_dir() or p.suffix == ".py"]
    return hash_code(*(name for name in names if name not in others))[:12]


def source_commit() -> str | None:
    """The commit of the checkout that geotune runs from; None if it is installed otherwise."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
