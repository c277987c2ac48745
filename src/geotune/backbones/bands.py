"""Names, aliases and wavelengths of spectral bands, and matching of bands by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError

# Sentinel-2 name: centre wavelength in micrometres (Sentinel-2A, ESA's spectral response functions)
# and aliases
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


def canonical_band(band: str) -> str:
    """The Sentinel-2 name of a band (`red` and `b4` are `B04`); other names are returned as is."""
    return _CANONICAL.get(band.lower().replace("-", "_").replace(" ", "_"), band)


def wavelength_um(band: str) -> float | None:
    """Centre wavelength in micrometres of a band with a known name, else None."""
    entry = _OPTICAL.get(canonical_band(band))
    return None if entry is None else entry[0]


@dataclass(frozen=True)
class BandMatch:
    """Which of a model's bands each image channel is.

    Attributes:
        columns: for each image channel the index of the model's band, or None for a band that the
            model was not pretrained with.
        note: a message for the user; empty if the images have exactly the model's bands.
    """

    columns: tuple[int | None, ...]
    note: str

    @property
    def all_known(self) -> bool:
        """Whether the model was pretrained with every band of the images."""
        return None not in self.columns

    def select(self, values: Sequence[float]) -> tuple[float, ...]:
        """From one value per band of the model, those of the images' bands (if `all_known`)."""
        return tuple(float(values[c]) for c in self.columns if c is not None)

    def fit_weight(self, weight: Tensor, dim: int = 1) -> Tensor:
        """Adapt a pretrained embedding to the images' bands; its axis `dim` is the model's bands.

        Unknown bands start from the mean over the model's bands. Missing bands are dropped, which
        equals feeding their mean, as normalised images are zero there.
        """
        mean = weight.mean(dim)
        own = weight.unbind(dim)
        return torch.stack([mean if c is None else own[c] for c in self.columns], dim)


def match_bands(spec: BackboneSpec, known: Sequence[str]) -> BandMatch:
    """Match the images' bands with those of a model by name.

    Raises `GeotuneError` for unknown bands (unless `new_bands` is `mean`) and for duplicates.
    """
    index_of = {canonical_band(band): i for i, band in reversed([*enumerate(known)])}
    columns = [index_of.get(canonical_band(band)) for band in spec.bands]
    new = [band for band, c in zip(spec.bands, columns, strict=True) if c is None]
    if new and spec.new_bands == "refuse":
        raise GeotuneError(
            f"backbone.bands: {spec.name} does not know {', '.join(new)}; it knows "
            f"{', '.join(known)}; use these names, remove the unknown bands, or initialise them "
            "from the mean of the others with backbone.new_bands=mean",
            code="band-unknown",
            key="backbone.bands",
        )
    twice = [
        b
        for b, c in zip(spec.bands, columns, strict=True)
        if c is not None and columns.count(c) > 1
    ]
    if twice:
        raise GeotuneError(
            f"backbone.bands: these names are the same band: {', '.join(twice)}; keep one of them",
            code="band-duplicate",
            key="backbone.bands",
        )
    if len(new) == len(columns):
        raise GeotuneError(
            f"backbone.bands: {spec.name} knows none of {', '.join(spec.bands)}; it knows "
            f"{', '.join(known)}; use at least one of these",
            code="band-unknown",
            key="backbone.bands",
        )
    absent = [band for i, band in enumerate(known) if i not in columns]
    notes = []
    if new:
        notes.append(
            f"not in the pretraining data, initialised from the mean of its bands: {', '.join(new)}"
        )
    if absent:
        notes.append(f"missing bands, treated as being at their mean: {', '.join(absent)}")
    return BandMatch(tuple(columns), "; ".join(notes))
