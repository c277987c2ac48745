"""Sentinel-2 products in ESA's format: a folder `.SAFE` with each band at several resolutions.

```
S2A_MSIL2A_....SAFE/GRANULE/L2A_.../IMG_DATA/R10m/T33UUP_20181013T102019_B02_10m.jp2
```
"""

from __future__ import annotations

import re
from pathlib import Path

from geotune.errors import GeotuneError

_BAND = re.compile(r".*_(B\d[\dA])(?:_(\d\d)m)?\.jp2", re.IGNORECASE)


def is_safe(path: Path) -> bool:
    """Whether a path is the folder of a product."""
    return path.suffix.upper() == ".SAFE" and path.is_dir()


def safe_bands(path: Path) -> dict[str, Path]:
    """The finest file of each band of a product, by its name such as B02.

    Raises `GeotuneError` if there is none, or the product has several granules.
    """
    granules = sorted(path.glob("GRANULE/*/IMG_DATA"))
    if len(granules) != 1:
        raise GeotuneError(
            f"{path}: has {len(granules)} folders GRANULE/*/IMG_DATA; expected one: download it "
            "again, or give a pattern of its files, GRANULE/*/IMG_DATA/R10m/*_{band}_10m.jp2",
            code="scenes-missing",
            key="data.scenes",
            file=path,
        )
    finest: dict[str, tuple[str, Path]] = {}
    for file in sorted(granules[0].rglob("*.jp2")):
        match = _BAND.fullmatch(file.name)
        if match:
            side, band = match[2] or "", match[1].upper()
            finest[band] = min((side, file), finest.get(band, (side, file)))
    if not finest:
        raise GeotuneError(
            f"{granules[0]}: has no band (*_B02_10m.jp2); download the product again",
            code="scenes-missing",
            key="data.scenes",
            file=granules[0],
        )
    return {band: finest[band][1] for band in sorted(finest, key=_spectral_order)}


def _spectral_order(band: str) -> float:
    """B8A lies between B08 and B09."""
    return 8.5 if band == "B8A" else float(band[1:])
