"""Scale and offset that files state for their values; they are compared, not applied."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from geotune.data.raster.io import open_dataset
from geotune.data.raster.source import BandFile
from geotune.utils.file_stat import describe_stat

_SAFE_OFFSET = re.compile(r"_ADD_OFFSET band_id=\"\d+\">\s*(-?\d+)")


def stated_scaling(file: BandFile) -> tuple[float, float]:
    """Scale and offset of a band; (1, 0) if the file states none."""
    handle = open_dataset(file.path)
    offset = handle.offsets[file.index - 1]
    if not offset and file.product is not None:
        offset = _read_offset(file.product, describe_stat(file.product.stat()))
    return handle.scales[file.index - 1], offset


def product_metadata(path: Path) -> Path | None:
    """The metadata of the Sentinel-2 product that a file belongs to."""
    folder = next((parent for parent in path.parents if parent.suffix.upper() == ".SAFE"), None)
    return None if folder is None else min(folder.glob("MTD_MSIL*.xml"), default=None)


@functools.lru_cache(maxsize=64)
def _read_offset(metadata: Path, stat: object) -> float:
    """The offset of a product, since processing baseline 04.00; read again if the file changed."""
    match = _SAFE_OFFSET.search(metadata.read_text(encoding="utf-8", errors="replace"))
    return float(match[1]) if match else 0.0
