"""Scenes of two parts that show the same ground."""

from __future__ import annotations

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue

SHOWN = 10
"""Pairs that are told apart; the rest are counted."""


def check_overlap(examined: ScannedData) -> list[Issue]:
    """An error for each pair of scenes in two parts of which one covers some of the other."""
    pairs = [(parts, found) for parts, gap in examined.distances.items() for found in gap.overlaps]
    pairs.sort(key=lambda pair: -pair[1].area_m2)
    rest = len(pairs) - SHOWN
    return [
        Issue(
            "error",
            "overlap",
            f"{found.one.path} ({one}) and {found.other.path} ({other}): overlap by "
            f"{found.area_m2:,.0f} m2, so that {other} is not held out"
            + (f", and so do {rest} more pairs" if rest > 0 and i == 0 else "")
            + "; put both into one part, or allow it with data.split.allow_overlap=true",
            found.one.path,
        )
        for i, ((one, other), found) in enumerate(pairs[:SHOWN])
    ]
