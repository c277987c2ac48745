"""Names of spectral bands: what different people call the same band, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError

# Sentinel-2's name, its centre in micrometres (Sentinel-2A, ESA's spectral response functions),
# and what else it is called.
_OPTICAL: dict[str, tuple[float, tuple[str, ...]]] = {
    "B01": (0.443, ("coastal", "coastal_aerosol", "aerosol", "ultra_blue")),
    "B02": (0.490, ("blue", "b")),
    "B03": (0.560, ("green", "g")),
    "B04": (0.665, ("red", "r")),
    "B05": (0.705, ("rededge1", "red_edge_1", "re1")),
    "B06": (0.740, ("rededge2", "red_edge_2", "re2")),
    "B07": (0.783, ("rededge3", "red_edge_3", "re3")),
    "B08": (0.842, ("nir", "nir_broad", "n")),
    "B8A": (0.865, ("nir_narrow", "rededge4", "red_edge_4", "re4")),
    "B09": (0.945, ("water_vapour", "water_vapor", "wv")),
    "B10": (1.375, ("cirrus",)),
    "B11": (1.610, ("swir1", "swir_1", "swir16", "s1_swir")),
    "B12": (2.190, ("swir2", "swir_2", "swir22", "s2_swir")),
}
_OTHER = ("VV", "VH", "HH", "HV", "DEM", "LULC", "NDVI")
_CANONICAL = (
    {name.lower(): name for name in (*_OPTICAL, *_OTHER)}
    | {f"b{int(name[1:])}": name for name in _OPTICAL if name[1:].isdigit()}
    | {alias: name for name, (_, aliases) in _OPTICAL.items() for alias in aliases}
)


def canonical(band: str) -> str:
    """Sentinel-2's name of a band where it is known by another (`red`, `b4`), else as it is."""
    return _CANONICAL.get(band.lower().replace("-", "_").replace(" ", "_"), band)


def wavelength(band: str) -> float | None:
    """Centre of a band in micrometres, where its name says it."""
    known = _OPTICAL.get(canonical(band))
    return None if known is None else known[0]


@dataclass(frozen=True)
class BandMatch:
    """How a model's own bands feed on the images' channels.

    Attributes:
        columns: for each channel of the images the index of the model's band that it is, or None
            for a band that the model has never seen.
        note: what a user should know, empty where the bands are the model's own.
    """

    columns: tuple[int | None, ...]
    note: str

    @property
    def known(self) -> bool:
        """Whether the model knows every band of the images."""
        return None not in self.columns

    def of(self, values: Sequence[float]) -> tuple[float, ...]:
        """Of a value for each of the model's bands those of the images' bands, all known to it."""
        return tuple(float(values[c]) for c in self.columns if c is not None)

    def weight(self, weight: Tensor, dim: int = 1) -> Tensor:
        """A pretrained embedding with a column for each band of the model, fitted to the images.

        A band that the model has never seen starts from the mean of the model's own. What is left
        out counts as being at its mean: normalised images are zero there.
        """
        mean = weight.mean(dim)
        own = weight.unbind(dim)
        return torch.stack([mean if c is None else own[c] for c in self.columns], dim)


def match_bands(request: BackboneSpec, known: Sequence[str]) -> BandMatch:
    """Match the images' bands with those of a model by name.

    Raises `GeotuneError` for a band that the model does not know, unless `new_bands` lets it in.
    """
    own = [canonical(band) for band in known]
    columns = [_index(own, canonical(band)) for band in request.bands]
    new = [band for band, c in zip(request.bands, columns, strict=True) if c is None]
    if new and request.new_bands == "refuse":
        raise GeotuneError(
            f"backbone.bands: {request.name} does not know {', '.join(new)}; it knows "
            f"{', '.join(known)}; name the bands so, leave these out, or let them start from the "
            "mean of the others with backbone.new_bands=mean"
        )
    twice = [
        b
        for b, c in zip(request.bands, columns, strict=True)
        if c is not None and columns.count(c) > 1
    ]
    if twice:
        raise GeotuneError(f"backbone.bands names one band twice: {', '.join(twice)}")
    if len(new) == len(columns):
        raise GeotuneError(
            f"backbone.bands: {request.name} knows none of {', '.join(request.bands)}; it knows "
            f"{', '.join(known)}"
        )
    absent = [band for i, band in enumerate(known) if i not in columns]
    notes = []
    if new:
        notes.append(
            f"new to the model, so started from the mean of its own bands: {', '.join(new)}"
        )
    if absent:
        notes.append(f"without {', '.join(absent)}, which count as being at their mean")
    return BandMatch(tuple(columns), "; ".join(notes))


def _index(names: Sequence[str], name: str) -> int | None:
    return names.index(name) if name in names else None
