"""Probabilities from which pixels of a class map get a class (`predict --threshold`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geotune.adapter_config import PredictionSettings
from geotune.errors import GeotuneError

WORTHWHILE_IOU = 0.01
"""Gain of a threshold in validation that is mentioned."""


def missed_thresholds(settings: PredictionSettings) -> list[str]:
    """Notes of thresholds that were better in validation than the most likely class."""
    return [
        f"{best.name}: IoU {best.iou:.3f} in validation with --threshold {best.name}=auto "
        f"({best.threshold:g}), {best.iou_most_likely or 0:.3f} without"
        for best in settings.class_thresholds
        if best.iou >= (best.iou_most_likely or 0) + WORTHWHILE_IOU
    ]


def class_thresholds(
    settings: PredictionSettings,
    classes: Sequence[str],
    threshold: float | str | Mapping[str, float | str] | None,
) -> dict[int, float]:
    """Thresholds by index of the class."""
    if threshold is None:
        return {}
    best = {one.name: one.threshold for one in settings.class_thresholds}
    if not isinstance(threshold, Mapping):
        pairs = [part.strip().rpartition("=") for part in str(threshold).split(",")]
        rarest = next(iter(best), "")
        threshold = {name if sign else rarest: value for name, sign, value in pairs}
    found: dict[int, float] = {}
    for name, text in threshold.items():
        try:
            value = best[name] if text == "auto" else float(text)
            found[list(classes).index(name)] = value
        except (KeyError, ValueError):
            value = -1
        if not 0 < value < 1:
            known = ", ".join(best) or "no class of this run"
            raise GeotuneError(
                f"--threshold {name}{'=' if name else ''}{text}: expected CLASS=VALUE, a class of "
                f"{', '.join(classes)} and a probability between 0 and 1, or auto, which "
                f"validation measured for {known}",
                code="option-invalid",
            )
    return found
