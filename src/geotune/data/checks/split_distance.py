"""How far the parts of the data lie apart."""

from __future__ import annotations

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue
from geotune.utils.text import join_some


def check_distances(examined: ScannedData) -> list[Issue]:
    """The nearest scenes of every two parts, and how many scenes have no place.

    A warning where the two are nearer than a window is wide: they may show one street.
    """
    found = []
    for (one, other), gap in examined.distances.items():
        if gap.overlaps:
            continue
        text = (
            f"the nearest scenes of {one} and {other} lie {format_metres(gap.distance_m)} apart: "
            f"{gap.one.path} and {gap.other.path}"
        )
        near = gap.distance_m < examined.window * gap.one.gsd_m
        if near:
            text += "; neighbours are alike: keep them together (data.split.kind blocks or group)"
        found.append(Issue("warning" if near else "note", "distance", text, gap.one.path))
    if examined.without_location:
        count = len(examined.without_location)
        found.append(
            Issue(
                "note",
                "distance",
                f"{count} of {len(examined.scenes)} scenes do not say where they lie "
                f"({join_some(examined.without_location)}), so their distance from the other parts is unknown",
            )
        )
    return found


def format_metres(distance: float) -> str:
    """A distance as people read it."""
    return f"{distance / 1000:,.1f} km" if distance >= 1000 else f"{distance:,.0f} m"
