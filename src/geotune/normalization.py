"""Which normalisation a training uses, and why."""

from __future__ import annotations

from typing import Literal

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, Normalization

FAR_STDS = 3.0
"""Band means further than this many pretraining standard deviations off speak of other units."""
WIDE_RATIO = 4.0
"""So do standard deviations that differ by more than this factor."""

SCALES = {
    10_000.0: "reflectance as 0 to 1 on one side and as 0 to 10,000 on the other",
    255.0: "values of 0 to 1 on one side and of 0 to 255 on the other",
}
"""Common factors between units, and what they mean."""
NEARLY = 3.0
"""A ratio of means counts as such a factor if it is off by less than this factor."""


def choose_normalization(
    backbone: Backbone,
    statistics: BandStatistics,
    mode: Literal["auto", "backbone", "data"] = "auto",
) -> tuple[Normalization, list[str]]:
    """Choose the normalisation for data with these statistics; returns it and notes for the user.

    Args:
        backbone: with the normalisation of its pretraining, if that is published.
        statistics: of the training split, in raw units.
        mode: `backbone` uses the pretraining's; `data` maps each band to the mean and standard
            deviation of the pretraining; `auto` uses the backbone's unless the data are in other
            units.

    Raises `GeotuneError` for `backbone` if no normalisation is published, and for a band that is
    constant in the training split.
    """
    own = backbone.normalization
    if mode == "backbone":
        if own is None:
            raise GeotuneError(
                f"data.normalize: {backbone.name} has no published normalisation; use "
                "data.normalize=data",
                code="normalization-missing",
                key="data.normalize",
            )
        odd = _in_other_units(backbone, statistics)
        return own, [] if odd is None else [f"{odd}; data.normalize=data would adapt to them"]
    if mode == "auto" and own is not None:
        odd = _in_other_units(backbone, statistics)
        if odd is None:
            return own, []
        return _from_data(backbone, statistics), [
            f"{odd}; each band is therefore normalised by the mean and standard deviation of the "
            "training data (data.normalize=backbone keeps those of the pretraining)"
        ]
    return _from_data(backbone, statistics), []


def _in_other_units(backbone: Backbone, statistics: BandStatistics) -> str | None:
    """Describe the first band that is not in the units of the pretraining; None if all are."""
    seen = backbone.pretraining
    if seen is None:
        return None
    rows = zip(statistics.bands, statistics.mean, statistics.std, seen.mean, seen.std, strict=True)
    for band, mean, std, usual_mean, usual_std in rows:
        far = abs(mean - usual_mean) > FAR_STDS * usual_std
        ratio = std / usual_std
        if far or not 1 / WIDE_RATIO < ratio < WIDE_RATIO:
            return (
                f"band {band} has mean {mean:.4g} and standard deviation {std:.4g}, but "
                f"{backbone.name} was trained on {usual_mean:.4g} and {usual_std:.4g}: these are "
                f"other units{_known_factor(statistics, seen)}"
            )
    return None


def _known_factor(statistics: BandStatistics, seen: BandStatistics) -> str:
    """The factor between the units, if it is a common one."""
    pairs = zip(statistics.mean, seen.mean, strict=True)
    ratios = [mean / usual for mean, usual in pairs if mean > 0 and usual > 0]
    if not ratios:
        return ""
    ratio = sorted(ratios)[len(ratios) // 2]
    for factor, meaning in SCALES.items():
        for observed, direction in ((1 / ratio, "smaller"), (ratio, "larger")):
            if factor / NEARLY < observed < factor * NEARLY:
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
    scale = [s / usual for s, usual in zip(statistics.std, stds, strict=True)]
    offset = [m - usual * f for m, usual, f in zip(statistics.mean, means, scale, strict=True)]
    return Normalization(statistics.bands, tuple(offset), tuple(scale))
