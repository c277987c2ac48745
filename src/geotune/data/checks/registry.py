"""Every check of data that was read, by name; a training and `geotune check` ask the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geotune.data.checks.band_values import values
from geotune.data.checks.consistency import likeness
from geotune.data.checks.duplicates import duplicates
from geotune.data.checks.label_checks import labels
from geotune.data.checks.overlap import overlap
from geotune.data.checks.scanned import ScannedData
from geotune.data.checks.split_distance import distance
from geotune.data.checks.value_units import units
from geotune.data.issues import SEVERITIES, Issue

CHECKS: dict[str, Callable[[ScannedData], list[Issue]]] = {
    "labels": labels,
    "likeness": likeness,
    "values": values,
    "units": units,
    "duplicates": duplicates,
    "overlap": overlap,
    "distance": distance,
}

LEAKS = ("duplicates", "overlap")
"""What `data.split.allow_overlap` allows."""


def check(examined: ScannedData, *, allow_overlap: bool = False) -> list[Issue]:
    """All that the checks find, errors first; scenes that share a place may be allowed to."""
    found = [one for look in CHECKS.values() for one in look(examined)]
    if allow_overlap:
        found = [
            replace(one, severity="warning")
            if one.check in LEAKS and one.severity == "error"
            else one
            for one in found
        ]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))
