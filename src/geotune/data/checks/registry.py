"""All checks of scanned data; `geotune fit` and `geotune check` run the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geotune.data.checks.label_checks import check_labels
from geotune.data.checks.scanned import ScannedData
from geotune.data.checks.split_checks import check_distances, check_duplicates, check_overlap
from geotune.data.checks.value_checks import check_band_values, check_consistency, check_units
from geotune.data.issues import SEVERITIES, Issue

CHECKS: dict[str, Callable[[ScannedData], list[Issue]]] = {
    "labels": check_labels,
    "consistency": check_consistency,
    "values": check_band_values,
    "units": check_units,
    "duplicates": check_duplicates,
    "overlap": check_overlap,
    "distance": check_distances,
}

LEAKAGE_CHECKS = ("duplicates", "overlap")
"""Checks whose errors `data.split.allow_overlap` turns into warnings."""


def run_checks(scanned: ScannedData, *, allow_overlap: bool = False) -> list[Issue]:
    """Run all checks. Returns their issues, errors first."""
    issues = [issue for check in CHECKS.values() for issue in check(scanned)]
    if allow_overlap:
        issues = [
            replace(issue, severity="warning")
            if issue.check in LEAKAGE_CHECKS and issue.severity == "error"
            else issue
            for issue in issues
        ]
    return sorted(issues, key=lambda issue: SEVERITIES.index(issue.severity))
