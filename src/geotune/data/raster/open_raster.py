"""Opening the image of a scene: one multi-band file, or one file per band, date or modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from rasterio.enums import ColorInterp

from geotune.data.raster.header import RasterHeader, read_header
from geotune.data.raster.nodata import FileMask
from geotune.data.raster.resample import at_resolution, check_grids, on_one_grid
from geotune.data.raster.scaling import product_metadata
from geotune.data.raster.source import BandFile, RasterSource
from geotune.data.raster.stack import stack_dates, stack_modalities
from geotune.data.raster.viewer_notes import is_indexed
from geotune.errors import GeotuneError


class ByDate(dict[date, Path | dict[str, Path]]):
    """The files of a scene of several dates."""


class ByModality(dict[str, Path | dict[str, Path] | ByDate]):
    """The files of a scene of several modalities, by the backbone's names for them."""


ALPHA = "alpha"
"""Name of a band of transparency: pixels in which it is 0 have no data, and it is not read."""

Files = Path | dict[str, Path] | ByDate | ByModality
"""A multi-band file or a file per band, perhaps by date or by modality."""


def open_raster(
    files: Files,
    *,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> RasterSource:
    """Open the image of a scene.

    Args:
        files: a multi-band file, or a single-band file per band name; or these by date, or by
            modality.
        bands: names of a file's bands in file order, if the file does not name them; by modality
            if there are several. A band named alpha marks pixels without data; as the last band of
            a file that declares it as transparency, it may be omitted.
        wanted_bands: the bands to read, in this order; by default all.
        nodata: the nodata value, if the file does not state it.
        resolution: ground sampling distance in metres to resample to, which also brings files of
            one scene to one grid; by default pixels are read unchanged.

    Raises `GeotuneError` for a file that is missing or not a raster, a missing band, and files of
    one scene on different grids.
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
        by_modality = bands if isinstance(bands, Mapping) else dict.fromkeys(files, bands)
        sources = {}
        for name, each in files.items():
            # the wanted bands are selected after stacking, which may rename them
            sources[name] = _open(each, by_modality.get(name), None, nodata, resolution)
        return stack_modalities(sources, regrid=regrid)
    if isinstance(bands, Mapping):
        raise GeotuneError(
            "data.bands: is given by modality, but data.scenes is not; give both by modality, or "
            "neither",
            code="recipe-invalid",
            key="data.bands",
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
        folder = next(iter(files.values()), Path()).parent
        raise GeotuneError(
            f"{folder}: no file for band {', '.join(missing)}; "
            f"found files for {', '.join(files) or 'none'}",
            code="band-missing",
            key="backbone.bands",
            file=folder,
        )
    opened = [_open_band(files[name], name, nodata) for name in names]
    if resolution is not None:
        opened[0] = at_resolution(opened[0], resolution)
        opened = on_one_grid(opened, regrid=True)
    return _join_bands(opened)


def _open_file(path: Path, bands: Sequence[str] | None, nodata: float | None) -> RasterSource:
    header = read_header(path)
    if any(dtype.startswith("complex") for dtype in header.dtypes):
        raise GeotuneError(
            f"{path}: has complex values; expected integers or floats",
            code="raster-dtype",
            file=path,
        )
    names = _band_names(path, header, bands)
    alpha = next((i for i, name in enumerate(names, 1) if name.casefold() == ALPHA), None)
    indexes = [i for i in range(1, header.count + 1) if i != alpha]
    names = [names[i - 1] for i in indexes]
    product = product_metadata(path)
    files = [
        BandFile(
            path,
            i,
            nodata if header.nodatavals[i - 1] is None else header.nodatavals[i - 1],
            FileMask(alpha) if alpha or header.masked[i - 1] else None,
            product=product,
            indexed=i == 1 and is_indexed(header),
            turned=header.turned,
        )
        for i in indexes
    ]
    return RasterSource(
        bands=tuple(names),
        band_files=tuple(files),
        named=bands is not None or any(header.descriptions),
        grid_shape=header.shape,
        crs=header.crs,
        transform=header.transform,
        acquired=header.acquired,
        control_points=header.control_points,
        wavelengths={
            name: length
            for i, name in zip(indexes, names, strict=True)
            if (length := header.wavelengths[i - 1]) is not None
        },
    )


def _band_names(path: Path, header: RasterHeader, bands: Sequence[str] | None) -> list[str]:
    """The names of a file's bands: `bands`, else its descriptions, else band1, band2, ...

    A last band of transparency that `bands` does not name is called alpha.
    """
    described = header.descriptions
    problem = None
    if bands is not None and len(bands) == header.count - 1 > 0:
        bands = [*bands, ALPHA] if header.colorinterp[-1] == ColorInterp.alpha else bands
    if bands is not None:
        if len(bands) != header.count:
            problem = (
                f"has {header.count} bands, but data.bands names {len(bands)} "
                f"({', '.join(bands)}); name every band in file order"
            )
        elif all(described) and set(described) == set(bands) and described != tuple(bands):
            problem = (
                f"its bands are described as {', '.join(map(str, described))}, but data.bands "
                f"lists them in another order ({', '.join(bands)}); remove data.bands"
            )
    names = list(bands or (text or f"band{i}" for i, text in enumerate(described, 1)))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if problem is None and repeated:
        problem = (
            f"several bands are named {', '.join(repeated)}; give each its own name with data.bands"
        )
    if problem is not None:
        raise GeotuneError(f"{path}: {problem}", code="band-names", key="data.bands", file=path)
    return names


def _open_band(path: Path, name: str, nodata: float | None) -> RasterSource:
    source = _open_file(path, None, nodata)
    if len(source.bands) != 1:
        raise GeotuneError(
            f"{path}: has {len(source.bands)} bands; expected one, as its path contains {{band}}: "
            "write * instead to read all bands of each file",
            code="band-names",
            key="data.scenes",
            file=path,
        )
    length = source.wavelengths.get(source.bands[0])
    wavelengths = {} if length is None else {name: length}
    return replace(source, bands=(name,), named=True, wavelengths=wavelengths)


def _join_bands(sources: Sequence[RasterSource]) -> RasterSource:
    """Join single-band files into one image on the grid of the finest.

    A pixel of a coarser file may span several pixels of that grid, as in Sentinel-2 products.
    """
    first = max(sources, key=lambda source: source.shape)
    files = []
    for source in sources:
        factor = max(1, round(first.shape[0] / source.shape[0]))
        check_grids(first, source, "bands of one scene", factor=factor)
        files.append(replace(source.band_files[0], factor=factor))
    return replace(
        first,
        bands=tuple(source.bands[0] for source in sources),
        band_files=tuple(files),
        acquired=next((s.acquired for s in sources if s.acquired is not None), None),
        wavelengths={name: length for s in sources for name, length in s.wavelengths.items()},
    )
