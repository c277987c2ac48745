"""Scale and offset that files state for their values; they are compared, not applied."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from geotune.data.raster.io import open_dataset
from geotune.data.raster.source import BandFile

_SAFE_OFFSET = re.compile(r"_ADD_OFFSET band_id=\"\d+\">\s*(-?\d+)")


def stated_scaling(file: BandFile) -> tuple[float, float]:
    """Scale and offset of a band; (1, 0) if the file states none."""
    handle = open_dataset(file.path)
    offset = handle.offsets[file.index - 1] or _safe_offset(file.path)
    return handle.scales[file.index - 1], offset


def _safe_offset(path: Path) -> float:
    """The offset in the metadata of a Sentinel-2 product, since processing baseline 04.00."""
    folder = next((parent for parent in path.parents if parent.suffix.upper() == ".SAFE"), None)
    return 0.0 if folder is None else _read_offset(folder)


@functools.lru_cache(maxsize=64)
def _read_offset(folder: Path) -> float:
    for metadata in folder.glob("MTD_MSIL*.xml"):
        match = _SAFE_OFFSET.search(metadata.read_text(encoding="utf-8", errors="replace"))
        if match:
            return float(match[1])
    return 0.0
