"""Choice between the normalisation of the pretraining and that of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, Normalization

MAX_MEAN_SHIFT = 3.0
"""Data are in other units if a band's mean is off by more than this many standard deviations of the
pretraining."""
MAX_STD_RATIO = 4.0
"""Or if a band's standard deviation differs by more than this factor."""

UNIT_FACTORS = {
    10_000.0: "reflectance as 0 to 1 on one side and as 0 to 10,000 on the other",
    255.0: "values of 0 to 1 on one side and of 0 to 255 on the other",
}
"""Common factors between units, and their meaning."""
FACTOR_TOLERANCE = 2.5
"""A ratio of means matches such a factor if it is off by less than this factor."""


def choose_normalization(
    backbone: Backbone,
    statistics: BandStatistics,
    mode: Literal["auto", "backbone", "data"] | Mapping[str, tuple[float, float]] = "auto",
    nodata_fill: float | None = None,
) -> tuple[Normalization, list[str]]:
    """Choose the normalisation for data with these statistics; returns it and notes for the user.

    Args:
        backbone: its `normalization` is that of its pretraining; None if it is not published.
        statistics: of the raw values of the training split.
        mode: `backbone` uses that of the pretraining; `data` maps each band to the mean and
            standard deviation of the pretraining; `auto` uses `backbone`, but `data` if none is
            published or the data are in other units. A mean and standard deviation by band are
            used as they are: `(x - mean) / std`.
        nodata_fill: raw value of missing pixels; None for the mean.

    Raises `GeotuneError` for `backbone` if no normalisation is published, for a band that is
    constant in the training split, and for a band without a given mean.
    """
    notes: list[str] = []
    if isinstance(mode, Mapping):
        normalization = _from_constants(backbone, mode)
    else:
        normalization, notes = _from_statistics(backbone, statistics, mode)
    if nodata_fill is not None:
        fill = (nodata_fill,) * len(normalization.bands)
        normalization = replace(normalization, fill=fill)
    return normalization, notes


def _from_constants(
    backbone: Backbone, mean_std: Mapping[str, tuple[float, float]]
) -> Normalization:
    missing = [band for band in backbone.bands if band not in mean_std]
    if missing:
        raise GeotuneError(
            f"data.normalize: no mean and standard deviation of {', '.join(missing)}; found those "
            f"of {', '.join(mean_std)}",
            code="band-missing",
            key="data.normalize",
        )
    means, stds = zip(*(mean_std[band] for band in backbone.bands), strict=True)
    return Normalization(backbone.bands, means, stds, fill=means)


def _from_statistics(
    backbone: Backbone, statistics: BandStatistics, mode: Literal["auto", "backbone", "data"]
) -> tuple[Normalization, list[str]]:
    published = backbone.normalization
    if mode == "backbone":
        if published is None:
            raise GeotuneError(
                f"data.normalize: {backbone.name} has no published normalisation; use "
                "data.normalize=data",
                code="normalization-missing",
                key="data.normalize",
            )
        difference = _unit_difference(backbone, statistics)
        notes = [f"{difference}; data.normalize=data would adapt to them"] if difference else []
        return published, notes
    if mode == "auto" and published is not None:
        difference = _unit_difference(backbone, statistics)
        if difference is None:
            return published, []
        return _from_data(backbone, statistics), [
            f"{difference}; each band is therefore normalised by the mean and standard deviation "
            "of the training data (data.normalize=backbone keeps those of the pretraining)"
        ]
    return _from_data(backbone, statistics), []


def _unit_difference(backbone: Backbone, statistics: BandStatistics) -> str | None:
    """Describe the first band that is not in the units of the pretraining; None if all are."""
    pretraining = backbone.pretraining
    if pretraining is None:
        return None
    means = zip(statistics.mean, pretraining.mean, strict=True)
    stds = zip(statistics.std, pretraining.std, strict=True)
    for band, (mean, ref_mean), (std, ref_std) in zip(statistics.bands, means, stds, strict=True):
        shifted = abs(mean - ref_mean) > MAX_MEAN_SHIFT * ref_std
        if shifted or not 1 / MAX_STD_RATIO < std / ref_std < MAX_STD_RATIO:
            return (
                f"band {band} has mean {mean:.4g} and standard deviation {std:.4g}, but "
                f"{backbone.name} was trained on {ref_mean:.4g} and {ref_std:.4g}: these are "
                f"other units{known_factor(statistics, pretraining)}"
            )
    return None


def known_factor(statistics: BandStatistics, reference: BandStatistics) -> str:
    """The factor between the units and its meaning, if it is a common one; else empty."""
    pairs = zip(statistics.mean, reference.mean, strict=True)
    ratios = [mean / ref_mean for mean, ref_mean in pairs if mean > 0 and ref_mean > 0]
    if not ratios:
        return ""
    ratio = sorted(ratios)[len(ratios) // 2]
    for factor, meaning in UNIT_FACTORS.items():
        for observed, direction in ((1 / ratio, "smaller"), (ratio, "larger")):
            if factor / FACTOR_TOLERANCE < observed < factor * FACTOR_TOLERANCE:
                return f", about {factor:,.0f} times {direction} ({meaning})"
    return ""


def _from_data(backbone: Backbone, statistics: BandStatistics) -> Normalization:
    constant = [b for b, std in zip(statistics.bands, statistics.std, strict=True) if not std > 0]
    if constant:
        raise GeotuneError(
            f"band {', '.join(constant)} is constant in all training scenes; remove it from "
            "backbone.bands",
            code="band-constant",
            key="backbone.bands",
        )
    means, stds = backbone.mean_std
    scale = [std / ref_std for std, ref_std in zip(statistics.std, stds, strict=True)]
    offset = [m - ref * s for m, ref, s in zip(statistics.mean, means, scale, strict=True)]
    return Normalization(statistics.bands, tuple(offset), tuple(scale))
