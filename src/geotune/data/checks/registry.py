"""Every check of data that was read, by name; a training and `geotune check` ask the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geotune.data.checks.band_values import check_band_values
from geotune.data.checks.consistency import check_consistency
from geotune.data.checks.duplicates import check_duplicates
from geotune.data.checks.label_checks import check_labels
from geotune.data.checks.overlap import check_overlap
from geotune.data.checks.scanned import ScannedData
from geotune.data.checks.split_distance import check_distances
from geotune.data.checks.value_units import check_units
from geotune.data.issues import SEVERITIES, Issue

CHECKS: dict[str, Callable[[ScannedData], list[Issue]]] = {
    "labels": check_labels,
    "likeness": check_consistency,
    "values": check_band_values,
    "units": check_units,
    "duplicates": check_duplicates,
    "overlap": check_overlap,
    "distance": check_distances,
}

LEAKS = ("duplicates", "overlap")
"""What `data.split.allow_overlap` allows."""


def run_checks(scanned: ScannedData, *, allow_overlap: bool = False) -> list[Issue]:
    """All that the checks find, errors first; scenes that share a place may be allowed to."""
    found = [one for look in CHECKS.values() for one in look(scanned)]
    if allow_overlap:
        found = [
            replace(one, severity="warning")
            if one.check in LEAKS and one.severity == "error"
            else one
            for one in found
        ]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))
