"""Stacking images of one location: several dates, or several sensors (modalities)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from geotune.data.raster.resample import on_one_grid
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError


def stack_dates(sources: Mapping[date, RasterSource], *, regrid: bool) -> RasterSource:
    """Stack images of one scene into one image with several dates, in order.

    With `regrid` all are resampled to the grid of the first. Raises `GeotuneError` if their bands
    or grids differ.
    """
    days = sorted(sources)
    images = on_one_grid([sources[day] for day in days], regrid=regrid)
    first = images[0]
    for other in images[1:]:
        if other.bands != first.bands:
            raise GeotuneError(
                f"{first.path} and {other.path}: dates of one scene, but their bands differ "
                f"({', '.join(first.bands)} and {', '.join(other.bands)}); select common bands "
                "with backbone.bands",
                code="bands-inconsistent",
                key="backbone.bands",
                file=other.path,
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
    """Stack images of one scene into one image with the bands of all modalities, in order.

    Bands that occur in several are renamed, such as `S1GRD:VV`. With `regrid` all are resampled to
    the grid of the first. Raises `GeotuneError` if their grids or numbers of dates differ.
    """
    images = on_one_grid(list(sources.values()), regrid=regrid)
    first = images[0]
    for other in images[1:]:
        if len(other.dates) != len(first.dates):
            raise GeotuneError(
                f"{first.path} and {other.path}: modalities of one scene with {first.num_dates} "
                f"and {other.num_dates} dates; expected the same number",
                code="dates-inconsistent",
                key="data.scenes",
                file=other.path,
            )
    all_bands = [band for image in images for band in image.bands]
    names = {
        modality: tuple(
            f"{modality}:{band}" if all_bands.count(band) > 1 else band for band in image.bands
        )
        for modality, image in zip(sources, images, strict=True)
    }
    return replace(
        first,
        bands=tuple(band for bands in names.values() for band in bands),
        band_files=tuple(file for image in images for file in image.band_files),
        named=all(image.named for image in images),
        wavelengths={
            name: image.wavelengths[band]
            for bands, image in zip(names.values(), images, strict=True)
            for name, band in zip(bands, image.bands, strict=True)
            if band in image.wavelengths
        },
    )
