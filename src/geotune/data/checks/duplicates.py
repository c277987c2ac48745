"""Images that are there twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue
from geotune.utils.text import join_some

SHOWN = 10
"""Images that are told apart; the rest are counted."""

Copy = tuple[str, Path]
"""An image's part and file."""


def check_duplicates(examined: ScannedData) -> list[Issue]:
    """An error for the same pixels in two parts, a note for the same pixels twice in one.

    Images of one value alone are not compared.
    """
    twins: dict[str, list[Copy]] = defaultdict(list)
    for part, scene, scan in examined.scenes:
        if (scan.maxima > scan.minima).any():
            twins[scan.digest].append((part, scene.raster.path))
    across: list[list[Copy]] = []
    within: list[list[Copy]] = []
    for same in twins.values():
        if len(same) > 1:
            (across if len({part for part, _ in same}) > 1 else within).append(same)
    found = [
        Issue(
            "error",
            "duplicates",
            f"{' and '.join(f'{path} ({part})' for part, path in _of_each_part(same))}: hold the "
            "same pixels"
            + (f", and so do {len(across) - SHOWN} more" if i == 0 and across[SHOWN:] else "")
            + "; leave one out, or allow it with data.split.allow_overlap=true",
            same[0][1],
        )
        for i, same in enumerate(across[:SHOWN])
    ]
    if within:
        named = [" = ".join(str(path) for _, path in same) for same in within]
        found.append(
            Issue(
                "note",
                "duplicates",
                f"images more than once in their part: {len(within)} ({join_some(named)})",
                within[0][0][1],
            )
        )
    return found


def _of_each_part(same: list[Copy]) -> list[Copy]:
    return list({part: (part, path) for part, path in reversed(same)}.values())[::-1]
