"""Ids of channels by wavelength, for models whose patch embedding depends on the bands."""

from __future__ import annotations

from collections.abc import Mapping

from geotune.backbones.bands import canonical_band, wavelength_um
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError


def channel_ids(spec: BackboneSpec, radar: Mapping[str, float], scale: float) -> tuple[float, ...]:
    """The id of each band: its centre wavelength in micrometres times `scale`, or that in `radar`.

    `backbone.wavelengths` overrides the wavelength of a known name; it may list unused bands.
    Raises `GeotuneError` for unknown or invalid wavelengths.
    """
    given = spec.wavelengths
    invalid = [f"{b}: {given[b]:g}" for b in spec.bands if not 0.1 <= given.get(b, 1) <= 100]
    if invalid:
        raise GeotuneError(
            f"backbone.wavelengths {', '.join(invalid)}: expected micrometres, from 0.1 to 100; "
            "red is about 0.665",
            code="backbone-option",
            key="backbone.wavelengths",
        )
    ids = []
    for band in spec.bands:
        name = canonical_band(band)
        length = given.get(band, wavelength_um(band))
        if band not in given and name.upper() in radar:
            ids.append(radar[name.upper()])
        elif length is not None:
            ids.append(round(length * scale, 6))
        else:
            raise GeotuneError(
                f"backbone.bands: {spec.name} needs the wavelength of {band}; set it in "
                f"micrometres with backbone.wavelengths={{{band}: ...}}, or use a band name of "
                f"Sentinel-2 or one of {', '.join(radar)}",
                code="band-unknown",
                key="backbone.wavelengths",
            )
    return tuple(ids)
