"""Opening scenes: one multi-band file, or one for each band, date or modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from geotune.data.raster.io import open_dataset
from geotune.data.raster.metadata import date_of, wavelength_of
from geotune.data.raster.resample import at_resolution
from geotune.data.raster.source import BandFile, RasterSource
from geotune.data.raster.stack import on_one_grid, stack_dates, stack_modalities
from geotune.errors import GeotuneError


class ByDate(dict[date, Path | dict[str, Path]]):
    """The files of a scene of several dates."""


class ByModality(dict[str, Path | dict[str, Path] | ByDate]):
    """The files of a scene of several modalities, by the name that the backbone gives them."""


Files = Path | dict[str, Path] | ByDate | ByModality
"""A multi-band file, or the file of each band; or those by date, or by modality."""


def open_raster(
    files: Files,
    *,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> RasterSource:
    """Open a scene.

    Args:
        files: one multi-band file, or a file of one band for each band name; or such by date, or
            by modality.
        bands: names of a file's bands in file order, where the file does not say; by modality
            where there are several.
        wanted_bands: what to read, in this order; by default all.
        nodata: the value without data, where the file does not say.
        resolution: metres a pixel, to which images, and files of one scene on other grids, are
            brought; by default they are taken as they are.

    Raises `GeotuneError` for a file that is missing or no raster, for bands that it does not
    have, and for files of one scene that do not lie on one grid.
    """
    source = _open(files, bands, wanted_bands, nodata, resolution)
    return source if wanted_bands is None else source.select(wanted_bands)


def _open(
    files: Files,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None,
    wanted: Sequence[str] | None,
    nodata: float | None,
    resolution: float | None,
) -> RasterSource:
    regrid = resolution is not None
    if isinstance(files, ByModality):
        named = bands if isinstance(bands, Mapping) else dict.fromkeys(files, bands)
        sources = {}
        for name, each in files.items():
            # which of the wanted bands are this modality's shows when all are open
            sources[name] = _open(each, named.get(name), None, nodata, resolution)
        return stack_modalities(sources, regrid=regrid)
    if isinstance(bands, Mapping):
        raise GeotuneError(
            "data.bands: is given by modality, but data.scenes is not; give both so, or neither"
        )
    if isinstance(files, ByDate):
        return stack_dates(
            {day: _open(each, bands, wanted, nodata, resolution) for day, each in files.items()},
            regrid=regrid,
        )
    if isinstance(files, Path):
        source = _open_file(files, bands, nodata)
        return source if resolution is None else at_resolution(source, resolution)
    names = list(wanted or files)
    missing = [name for name in names if name not in files]
    if missing:
        found = next(iter(files.values()), Path())
        raise GeotuneError(
            f"{found.parent}: there is no file for band {', '.join(missing)}; "
            f"there is one for {', '.join(files) or 'none'}"
        )
    opened = [_open_band(files[name], name, nodata) for name in names]
    if resolution is not None:
        opened[0] = at_resolution(opened[0], resolution)
    return _join(on_one_grid(opened, regrid=True) if regrid else opened)


def _open_file(path: Path, bands: Sequence[str] | None, nodata: float | None) -> RasterSource:
    handle = open_dataset(path, anew=True)
    described = [text or None for text in handle.descriptions]
    if any(kind.startswith("complex") for kind in handle.dtypes):
        raise GeotuneError(f"{path}: has complex values; expected integers or floats")
    if bands is not None:
        if len(bands) != handle.count:
            raise GeotuneError(
                f"{path}: has {handle.count} bands, but data.bands names {len(bands)} "
                f"({', '.join(bands)}); name every band in file order"
            )
        if all(described) and set(described) == set(bands) and described != list(bands):
            raise GeotuneError(
                f"{path}: says its bands are {', '.join(map(str, described))}, data.bands says "
                f"{', '.join(bands)}: the same names in another order; drop data.bands"
            )
    names = list(bands or (text or f"band{i}" for i, text in enumerate(described, 1)))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GeotuneError(
            f"{path}: more than one band is called {', '.join(twice)}; "
            "give each its own name with data.bands"
        )
    places = [
        BandFile(path, i, nodata if own is None else own, _has_mask(handle, i))
        for i, own in enumerate(handle.nodatavals, 1)
    ]
    return RasterSource(
        bands=tuple(names),
        band_files=tuple(places),
        named=bands is not None or any(described),
        shape=handle.shape,
        crs=handle.crs,
        transform=handle.transform,
        acquired=date_of(handle, path.name),
        wavelengths={
            name: length
            for i, name in enumerate(names, 1)
            if (length := wavelength_of(handle, i)) is not None
        },
    )


def _has_mask(handle: DatasetReader, index: int) -> bool:
    # An alpha band does not count: GDAL takes the fourth of four byte bands for one, which in
    # imagery is near infrared.
    flags = handle.mask_flag_enums[index - 1]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _open_band(path: Path, name: str, nodata: float | None) -> RasterSource:
    source = _open_file(path, None, nodata)
    if len(source.bands) != 1:
        raise GeotuneError(
            f"{path}: has {len(source.bands)} bands; expected one, for {{band}} stands in the "
            "path; write * in its place to read all bands of each file"
        )
    [own] = source.bands
    lengths = {name: source.wavelengths[own]} if own in source.wavelengths else {}
    return replace(source, bands=(name,), named=True, wavelengths=lengths)


def _join(sources: Sequence[RasterSource]) -> RasterSource:
    """One scene of files that hold one band each, on the grid of the finest.

    A coarser file's pixels may be a whole number of the scene's wide, as in Sentinel-2's products.
    """
    first = max(sources, key=lambda source: source.shape)
    factors = [_factor(first, other) for other in sources]
    return replace(
        first,
        bands=tuple(source.bands[0] for source in sources),
        band_files=tuple(
            replace(source.band_files[0], factor=factor)
            for source, factor in zip(sources, factors, strict=True)
        ),
        acquired=next((s.acquired for s in sources if s.acquired is not None), None),
        wavelengths={name: length for s in sources for name, length in s.wavelengths.items()},
    )


def _factor(first: RasterSource, other: RasterSource) -> int:
    """How many pixels of `first` a pixel of `other` is wide.

    Raises `GeotuneError` where that is no whole number, or the two do not cover the same ground.
    """
    factor = max(1, round(first.shape[0] / other.shape[0]))
    finer = other.transform @ Affine.scale(1 / factor)
    for what, one, two, same in (
        ("pixels (H, W)", first.shape, other.shape, tuple(factor * n for n in other.shape)),
        ("CRS", first.crs, other.crs, other.crs),
        ("transform", tuple(first.transform)[:6], tuple(other.transform)[:6], tuple(finer)[:6]),
    ):
        if one != same:
            raise GeotuneError(
                f"{first.path} and {other.path}: bands of one scene, but their {what} differ "
                f"({one} and {two}); bring them to one grid with data.resolution"
            )
    return factor
