"""Input images of torchgeo's weights: bands, units and statistics."""

from __future__ import annotations

import re
from dataclasses import dataclass

from geotune.backbones.bands import BandMatch, canonical_band, match_bands
from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.types import BandStatistics, Normalization


@dataclass(frozen=True)
class InputSpec:
    """Images of pretraining, from torchgeo's transforms and documentation.

    Attributes:
        bands: in the model's order.
        offset, scale: of torchgeo's normalisation `(x - offset) / scale`, if it has this form.
        mean, std: of the bands in raw units, if published by torchgeo.
        band_colors: color names of Landsat bands, whose numbers differ from Sentinel-2's.
        note: a message for the user on units.
    """

    bands: tuple[str, ...]
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    band_colors: tuple[str, ...] = ()
    note: str = ""


def match_input_bands(spec: BackboneSpec, images: InputSpec) -> BandMatch:
    """Match bands with those of pretraining; see `match_bands`.

    For Landsat images, `B4` and `SR_B4` are Landsat's band 4, and color names are Landsat bands.
    """
    if not images.band_colors:
        return match_bands(spec, images.bands)
    labels = [f"{b} ({colour})" for b, colour in zip(images.bands, images.band_colors, strict=True)]
    by_number = {_number(b): label for b, label in zip(images.bands, labels, strict=True)}
    by_colour = {
        canonical_band(c): label for c, label in zip(images.band_colors, labels, strict=True)
    }

    def label(band: str) -> str:
        number = _number(band)
        return (by_number.get(number) if number else by_colour.get(canonical_band(band))) or band

    return match_bands(spec.with_bands([label(b) for b in spec.bands]), labels)


def _number(band: str) -> str | None:
    """The band number: `4` for `B4`, `b04` and `SR_B4`; None for other names."""
    match = re.fullmatch(r"(?:sr_)?b0*(\d+\w*)", band.lower())
    return match.group(1) if match else None


def apply_input_spec(backbone: Backbone, images: InputSpec, match: BandMatch) -> None:
    """Set a backbone's normalisation, statistics and notes."""
    if match.all_known:
        if images.scale:
            backbone.normalization = Normalization(
                backbone.bands, match.select(images.offset), match.select(images.scale)
            )
        if images.mean:
            backbone.pretraining = BandStatistics(
                backbone.bands, match.select(images.mean), match.select(images.std), pixels=0
            )
    backbone.notes += tuple(note for note in (match.note, images.note) if note)


def _bytes(*bands: str, band_colors: tuple[str, ...] = (), note: str = "8-bit values") -> InputSpec:
    """Images of 8-bit values, divided by 255."""
    count = len(bands)
    return InputSpec(
        bands,
        (0.0,) * count,
        (255.0,) * count,
        band_colors=band_colors,
        note=f"pretrained on {note}",
    )


def _reflectance(*bands: str, mean: dict[str, float], std: dict[str, float]) -> InputSpec:
    """Sentinel-2 values (reflectance times 10000), divided by 10000."""
    return InputSpec(
        bands,
        (0.0,) * len(bands),
        (10000.0,) * len(bands),
        tuple(mean[b] for b in bands if mean),
        tuple(std[b] for b in bands if std),
    )


_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
# of SSL4EO-S12
_S2_MEANS = (
    *(1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7),
    *(2318.7, 2581.0, 837.7, 22.0, 2195.2, 1537.4),
)
_S2_STDS = (
    *(791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0),
    *(1249.5, 1345.9, 577.5, 47.5, 1340.0, 1142.9),
)
_S2_MEAN = dict(zip(_S2, _S2_MEANS, strict=True))
_S2_STD = dict(zip(_S2, _S2_STDS, strict=True))

_S1_MEAN = (-12.59, -20.26)
_S1_STD = (5.26, 5.91)

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_RGB = ("red", "green", "blue")


def _imagenet(maximum: float) -> InputSpec:
    """Images from 0 to `maximum`, normalised by ImageNet's mean and standard deviation."""
    mean = tuple(maximum * m for m in _IMAGENET_MEAN)
    std = tuple(maximum * s for s in _IMAGENET_STD)
    return InputSpec(_RGB, mean, std, mean, std)


_TM = ("blue", "green", "red", "nir", "swir1", "thermal", "swir2")
_ETM = (*_TM[:5], "thermal_low_gain", "thermal_high_gain", "swir2", "pan")
_ETM_SR = (*_TM[:5], "swir2")
_OLI = ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
_OLI_TIRS = (*_OLI, "pan", "cirrus", "thermal1", "thermal2")
_LANDSAT = "8-bit values, as in SSL4EO-L"

FMOW = _imagenet(255.0)
INPUT_SPECS = {
    "closp_s1": InputSpec(("VV", "VH")),
    "closp_s2": _reflectance(*_S2, mean={}, std={}),
    "etm_sr": _bytes(*(f"SR_B{i}" for i in (1, 2, 3, 4, 5, 7)), band_colors=_ETM_SR, note=_LANDSAT),
    "etm_toa": _bytes(
        *("B1", "B2", "B3", "B4", "B5", "B6_VCID_1", "B6_VCID_2", "B7", "B8"),
        band_colors=_ETM,
        note=_LANDSAT,
    ),
    "fmow": FMOW,
    "oli_sr": _bytes(*(f"SR_B{i}" for i in range(1, 8)), band_colors=_OLI, note=_LANDSAT),
    "oli_tirs_toa": _bytes(*(f"B{i}" for i in range(1, 12)), band_colors=_OLI_TIRS, note=_LANDSAT),
    "s1": InputSpec(
        ("VV", "VH"), _S1_MEAN, _S1_STD, _S1_MEAN, _S1_STD, note="pretrained on decibels"
    ),
    "s2": _reflectance(*_S2, mean=_S2_MEAN, std=_S2_STD),
    "s2_l2a": _reflectance(*(b for b in _S2 if b != "B10"), mean={}, std={}),
    "s2_ndvi": _reflectance(*_S2[1:9], "NDVI", mean={}, std={}),
    "s2_rgb": _reflectance("B04", "B03", "B02", mean=_S2_MEAN, std=_S2_STD),
    "s2_standard": InputSpec(_S2, _S2_MEANS, _S2_STDS, _S2_MEANS, _S2_STDS),
    "satlas_landsat": InputSpec(
        tuple(f"B{i:02}" for i in range(1, 12)),
        (4000.0,) * 11,
        (16320.0,) * 11,
        band_colors=_OLI_TIRS,
    ),
    "satlas_rgb": _bytes(*_RGB),
    "satlas_s1": _bytes("VH", "VV"),
    "satlas_s2": InputSpec(
        ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12"),
        (0.0,) * 9,
        (255.0,) * 3 + (8160.0,) * 6,
        note="pretrained on B04, B03, B02 as 8-bit values of Sentinel-2's true-colour image, and "
        "on raw values of the other bands",
    ),
    "satlas_s2_rgb": _bytes(
        "B04", "B03", "B02", note="8-bit values of Sentinel-2's true-colour image"
    ),
    # torchgeo's transform has SeCo's quantiles in another order than its bands, so it is not used
    "seco_rgb": InputSpec(("B04", "B03", "B02")),
    "streets": _imagenet(1.0),
    "tm_toa": _bytes(*(f"B{i}" for i in range(1, 8)), band_colors=_TM, note=_LANDSAT),
}
"""Input images by their name in `weights_table.csv`."""
