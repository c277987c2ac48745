"""Whether there is room for features, on a disk or in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from geotune.errors import GeotuneError


def check_free_space(folder: Path | None, limit: int | None, samples: int, needed: int) -> None:
    """Raise `GeotuneError` where the features of so many samples take more than there may be.

    Args:
        folder: of caches; None for memory.
        limit: in bytes, of all that is in the folder or in memory; None: what is free.
        samples: whose features are still to be computed.
        needed: bytes that they take.
    """
    there = folder_bytes(folder) if folder else 0
    free = shutil.disk_usage(folder).free if folder else available_memory()
    takes = f"the features of {samples} windows take {format_bytes(needed)}"
    advice = (
        "use train.cache_precision=int8, method.projection_init=pca_fixed with est, data.augment=false (an "
        "eighth), or fewer data.samples"
    )
    if limit is not None and there + needed > limit:
        other = f", and {folder} holds {format_bytes(there)} already" if there else ""
        more = "; folders in it that no recipe needs may be deleted" if there else ""
        raise GeotuneError(
            f"train.cache_limit {format_bytes(limit)}: {takes}{other}; raise it, {advice}{more}"
        )
    if free is not None and needed > free:
        where = f"the disk of {folder}" if folder else "the memory"
        raise GeotuneError(
            f"train.cache: {takes}, but {where} has {format_bytes(free)} free; make room, {advice}"
        )


def folder_bytes(folder: Path) -> int:
    """What the files of a folder and of those in it take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def available_memory() -> int | None:
    """Bytes that a process may still take; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = dict(line.split(":") for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def format_bytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
