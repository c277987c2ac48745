"""Check the free disk space or memory before features are computed."""

from __future__ import annotations

import shutil
from pathlib import Path

from geotune.errors import GeotuneError
from geotune.utils.available_memory import available_memory


def check_free_space(folder: Path | None, limit: int | None, samples: int, needed: int) -> None:
    """Raise `GeotuneError` if the missing features exceed the limit or the free space.

    Args:
        folder: the cache folder; None for memory.
        limit: bytes that all features together may take; None for no limit.
        samples: number of samples to compute.
        needed: their size in bytes.
    """
    used = folder_bytes(folder) if folder else 0
    free = shutil.disk_usage(folder).free if folder else available_memory()
    need = f"the features of {samples} windows need {format_bytes(needed)}"
    advice = (
        "use train.cache_precision=int8, method.projection_init=pca_fixed with est, "
        "data.augment=false (one eighth), or fewer data.samples"
    )
    if limit is not None and used + needed > limit:
        existing = f", and {folder} already holds {format_bytes(used)}" if used else ""
        hint = "; feature sets in it that no recipe uses may be deleted" if used else ""
        raise GeotuneError(
            f"train.cache_limit {format_bytes(limit)}: {need}{existing}; raise it, {advice}{hint}",
            code="cache-too-large",
            key="train.cache_limit",
            file=folder,
        )
    if free is not None and needed > free:
        medium = f"the disk of {folder}" if folder else "main memory"
        raise GeotuneError(
            f"train.cache: {need}, but {medium} has only {format_bytes(free)} free; free some, "
            f"{advice}",
            code="cache-too-large",
            key="train.cache",
            file=folder,
        )


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def format_bytes(size: int) -> str:
    """Bytes in decimal units: `1.23 GB`, `45.6 MB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
