"""Checks of the splits: leakage between them, and their distances."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue
from geotune.utils.text import join_some

MAX_LISTED = 10
"""Errors that are listed one by one; the others are counted."""

ALLOW = "or set data.split.allow_overlap=true"
Copy = tuple[str, Path]
"""The split and file of an image."""


def check_duplicates(scanned: ScannedData) -> list[Issue]:
    """Errors for identical pixels in two splits, a note for identical pixels within a split.

    Constant images are not compared.
    """
    by_digest: dict[str, list[Copy]] = defaultdict(list)
    for split, scene, scan in scanned.scenes:
        if (scan.maxima > scan.minima).any():
            by_digest[scan.digest].append((split, scene.raster.path))
    across: list[list[Copy]] = []
    within: list[list[Copy]] = []
    for copies in by_digest.values():
        if len(copies) > 1:
            (across if len({split for split, _ in copies}) > 1 else within).append(copies)
    rest = len(across) - MAX_LISTED
    issues = [
        Issue(
            "error",
            "duplicates",
            f"{' and '.join(f'{path} ({split})' for split, path in _one_per_split(copies))}: "
            "identical pixels"
            + (f" ({rest} more such images)" if i == 0 and rest > 0 else "")
            + f"; remove one of them, {ALLOW}",
            copies[0][1],
            code="split-leakage",
            key="data.split",
        )
        for i, copies in enumerate(across[:MAX_LISTED])
    ]
    if within:
        names = [" = ".join(str(path) for _, path in copies) for copies in within]
        text = f"{len(within)} images occur more than once in their split: {join_some(names)}"
        issues.append(Issue("note", "duplicates", text, within[0][0][1]))
    return issues


def _one_per_split(copies: list[Copy]) -> list[Copy]:
    return list({split: (split, path) for split, path in reversed(copies)}.values())[::-1]


def check_overlap(scanned: ScannedData) -> list[Issue]:
    """Errors for overlapping scenes in two splits, the largest overlap first."""
    pairs = [
        (splits, overlap)
        for splits, distance in scanned.distances.items()
        for overlap in distance.overlaps
    ]
    pairs.sort(key=lambda pair: -pair[1].area_m2)
    rest = len(pairs) - MAX_LISTED
    return [
        Issue(
            "error",
            "overlap",
            f"{overlap.one.path} ({one}) and {overlap.other.path} ({other}): overlap by "
            f"{overlap.area_m2:,.0f} m2, so {other} is not held out"
            + (f" ({rest} more such pairs)" if rest > 0 and i == 0 else "")
            + f"; assign both to one split, {ALLOW}",
            overlap.one.path,
            code="split-leakage",
            key="data.split",
        )
        for i, ((one, other), overlap) in enumerate(pairs[:MAX_LISTED])
    ]


def check_distances(scanned: ScannedData) -> list[Issue]:
    """Notes about the nearest scenes of every two splits, and about scenes without a location.

    A warning if they are closer than the width of a window.
    """
    issues = []
    for (one, other), nearest in scanned.distances.items():
        if nearest.overlaps:
            continue
        text = (
            f"the nearest scenes of {one} and {other} are {format_metres(nearest.distance_m)} "
            f"apart: {nearest.one.path} and {nearest.other.path}"
        )
        close = nearest.distance_m < scanned.window * nearest.one.gsd_m
        if close:
            text += "; neighbours are similar: keep them together (data.split.kind blocks or group)"
        issues.append(Issue("warning" if close else "note", "distance", text, nearest.one.path))
    if scanned.without_location:
        count = len(scanned.without_location)
        text = (
            f"{count} of {len(scanned.scenes)} scenes have no location "
            f"({join_some(scanned.without_location)}); their distance to other splits is unknown"
        )
        issues.append(Issue("note", "distance", text))
    return issues


def format_metres(distance: float) -> str:
    """A distance in metres or kilometres."""
    return f"{distance / 1000:,.1f} km" if distance >= 1000 else f"{distance:,.0f} m"
