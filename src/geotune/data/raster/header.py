"""Headers of raster files, kept between runs where a cache for them is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from geotune.data.raster.control_points import ControlPoints, control_points
from geotune.data.raster.io import close_dataset, open_dataset
from geotune.data.raster.tags import acquisition_date, band_wavelength_um, is_turned


@dataclass(frozen=True)
class RasterHeader:
    """What a raster file states about its pixels; attributes are those of rasterio's datasets.

    Attributes:
        masked: whether a band has a mask in or beside the file; transparency does not count.
        joint_nodata: nodata values of the bands that mask a pixel together, such as the colour that
            a PNG declares as transparent.
        palette: red, green, blue and alpha by index, if the first band has a palette.
        turned: whether it is shown in another orientation (EXIF).
        num_bits: bits per pixel of the first band, if fewer than those of its type.
        acquired: the acquisition date in the tags or the file name.
        wavelengths: central wavelength of each band in micrometres.
        control_points: of a file without other georeference.
    """

    shape: tuple[int, int]
    crs: CRS | None
    transform: Affine
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    colorinterp: tuple[ColorInterp, ...]
    nodatavals: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    masked: tuple[bool, ...]
    joint_nodata: tuple[float, ...] | None
    palette: Mapping[int, tuple[int, int, int, int]] | None
    turned: bool
    num_bits: int | None
    acquired: date | None
    wavelengths: tuple[float | None, ...]
    control_points: ControlPoints | None

    @property
    def count(self) -> int:
        """The number of bands."""
        return len(self.dtypes)

    @classmethod
    def of(cls, handle: DatasetReader, name: str) -> RasterHeader:
        """The header of an open file; `name` may hold its date."""
        bands = range(1, handle.count + 1)
        palette = handle.colorinterp[0] == ColorInterp.palette
        flags = handle.mask_flag_enums
        joint = None
        if {MaskFlags.per_dataset, MaskFlags.nodata} <= {*flags[0]}:
            joint = tuple(map(float, handle.tags()["NODATA_VALUES"].split()))
        bits = handle.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        return cls(
            shape=handle.shape,
            crs=handle.crs,
            transform=handle.transform,
            dtypes=tuple(handle.dtypes),
            descriptions=tuple(text or None for text in handle.descriptions),
            colorinterp=tuple(handle.colorinterp),
            nodatavals=tuple(handle.nodatavals),
            scales=tuple(handle.scales),
            offsets=tuple(handle.offsets),
            # Alpha bands do not count: GDAL takes the fourth of four byte bands for one, which in
            # imagery is near infrared.
            masked=tuple(
                MaskFlags.per_dataset in of_band and MaskFlags.alpha not in of_band
                for of_band in flags
            ),
            joint_nodata=joint,
            palette=handle.colormap(1) if palette else None,
            turned=is_turned(handle),
            num_bits=None if bits is None else int(bits),
            acquired=acquisition_date(handle, name),
            wavelengths=tuple(band_wavelength_um(handle, i) for i in bands),
            control_points=control_points(handle),
        )

    def to_json(self) -> dict[str, Any] | None:
        """As values of JSON; None for a CRS that text cannot hold exactly."""
        control = self.control_points
        crs = control.crs if control else self.crs  # no file has both
        wkt = None if crs is None else _wkt(crs)
        if crs is not None and wkt is None:
            return None
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "crs": wkt,
            "transform": tuple(self.transform)[:6],
            "colorinterp": [int(color) for color in self.colorinterp],
            "palette": self.palette and list(self.palette.items()),
            "acquired": self.acquired and self.acquired.isoformat(),
            "control_points": control and control.points,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RasterHeader:
        """The inverse of `to_json`."""
        columns: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        palette, acquired, crs = (values[name] for name in ("palette", "acquired", "crs"))
        control = values["control_points"]
        columns |= {
            "crs": None if crs is None or control else _crs(crs),
            "control_points": control and ControlPoints(_crs(crs), tuple(map(tuple, control))),
            "transform": Affine(*values["transform"]),
            "colorinterp": tuple(map(ColorInterp, values["colorinterp"])),
            "palette": None if palette is None else {i: tuple(rgba) for i, rgba in palette},
            "acquired": None if acquired is None else date.fromisoformat(acquired),
        }
        return cls(**columns)


class HeaderCache(Protocol):
    """Headers that were read before; see `ScanCache`."""

    def get_header(self, path: Path) -> RasterHeader | None:
        """The header of a file that did not change."""

    def put_header(self, path: Path, header: RasterHeader, files: list[str]) -> None:
        """Store a header that was read from `files`."""


_cache: ContextVar[HeaderCache | None] = ContextVar("header_cache", default=None)


@contextmanager
def cached_headers(cache: HeaderCache | None) -> Iterator[None]:
    """Use a cache for the headers that this thread reads."""
    token = _cache.set(cache)
    try:
        yield
    finally:
        _cache.reset(token)


def read_header(path: Path) -> RasterHeader:
    """Read the header of a raster file. Raises `GeotuneError` if it is missing or not a raster."""
    cache = _cache.get()
    header = cache.get_header(path) if cache else None
    if header is not None:
        close_dataset(path)  # it may be open since before the file changed
        return header
    handle = open_dataset(path, reopen=True)
    header = RasterHeader.of(handle, path.name)
    if cache:
        cache.put_header(path, header, handle.files)
    return header


def _wkt(crs: CRS) -> str | None:
    """A CRS as text; None if the text is not exactly this CRS."""
    try:
        wkt: str = crs.to_wkt()
        other = _crs(wkt)
        exact = other == crs and other.to_wkt() == wkt
    except CRSError:
        return None
    return wkt if exact else None


@lru_cache(maxsize=64)
def _crs(wkt: str) -> CRS:
    return CRS.from_wkt(wkt)
