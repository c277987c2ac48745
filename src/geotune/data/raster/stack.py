"""Images of one place side by side: of several dates, or of several sensors (modalities)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from geotune.data.raster.resample import on_grid
from geotune.errors import GeotuneError

if TYPE_CHECKING:
    from geotune.data.raster.source import RasterSource


def stack_dates(sources: Mapping[date, RasterSource], *, regrid: bool) -> RasterSource:
    """One image of several dates, the earliest first.

    With `regrid` all are brought to the grid of the first. Raises `GeotuneError` where their bands
    or grids differ.
    """
    days = sorted(sources)
    images = on_one_grid([sources[day] for day in days], regrid=regrid)
    first = images[0]
    for other in images[1:]:
        if other.bands != first.bands:
            raise GeotuneError(
                f"{first.path} and {other.path}: dates of one scene, but their bands differ "
                f"({', '.join(first.bands)} and {', '.join(other.bands)}); say which to use with "
                "backbone.bands"
            )
    if len(days) == 1:
        return replace(first, acquired=days[0])
    return replace(
        first,
        band_files=tuple(image.band_files[i] for i in range(len(first.bands)) for image in images),
        acquired=days[0],
        dates=tuple(days),
    )


def stack_modalities(sources: Mapping[str, RasterSource], *, regrid: bool) -> RasterSource:
    """One image with the bands of several modalities, in their order.

    A band that two of them have is called `S1GRD:VV`. With `regrid` all are brought to the grid of
    the first. Raises `GeotuneError` where their grids, or the numbers of their dates, differ.
    """
    images = on_one_grid(list(sources.values()), regrid=regrid)
    first = images[0]
    for other in images[1:]:
        if len(other.dates) != len(first.dates):
            raise GeotuneError(
                f"{first.path} and {other.path}: modalities of one scene, but of {first.num_dates} and "
                f"{other.num_dates} dates; expected the same number"
            )
    every = [band for image in images for band in image.bands]
    named = {
        modality: tuple(
            f"{modality}:{band}" if every.count(band) > 1 else band for band in image.bands
        )
        for modality, image in zip(sources, images, strict=True)
    }
    return replace(
        first,
        bands=tuple(band for bands in named.values() for band in bands),
        band_files=tuple(place for image in images for place in image.band_files),
        named=all(image.named for image in images),
        wavelengths={
            name: image.wavelengths[band]
            for bands, image in zip(named.values(), images, strict=True)
            for name, band in zip(bands, image.bands, strict=True)
            if band in image.wavelengths
        },
    )


def on_one_grid(sources: Sequence[RasterSource], *, regrid: bool) -> list[RasterSource]:
    """Images of one scene on the grid of the first.

    Raises `GeotuneError` where they lie on others and are not to be brought to it.
    """
    first = sources[0]
    if regrid:
        grid = (first.crs, first.transform, first.shape)
        return [first, *(on_grid(other, grid) for other in sources[1:])]
    for other in sources[1:]:
        for what, one, two in (
            ("pixels (H, W)", first.shape, other.shape),
            ("CRS", first.crs, other.crs),
            ("transform", tuple(first.transform)[:6], tuple(other.transform)[:6]),
        ):
            if one != two:
                raise GeotuneError(
                    f"{first.path} and {other.path}: files of one scene, but their {what} differ "
                    f"({one} and {two}); bring them to one grid with data.resolution"
                )
    return list(sources)
