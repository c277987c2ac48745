"""Split scenes that were read once: what every check and every dataset is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from geotune.data.checks.scan import SceneScan, scan
from geotune.data.issues import ErrorCollector
from geotune.data.raster.metadata import check_metadata
from geotune.data.scenes.footprints import Distance, footprint, group_distance
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, require_splits
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class ScannedData:
    """Split scenes and what was found in them.

    Attributes:
        parts: the scenes of each part that could be read.
        scans: what each of them holds.
        window: side of the windows in pixels.
        gaps: how far apart two parts are, by their names; without those of which no scene says
            where it lies.
        unplaced: scenes that do not say where they lie.
    """

    parts: Splits
    scans: dict[str, list[SceneScan]]
    window: int
    gaps: dict[tuple[str, str], Distance]
    unplaced: list[str]

    @property
    def scenes(self) -> list[tuple[str, Scene, SceneScan]]:
        """All scenes, each with its part and what was found in it."""
        return [
            (part, scene, found)
            for part, members in self.parts.items()
            for scene, found in zip(members, self.scans[part], strict=True)
        ]

    @property
    def distances_m(self) -> dict[str, float]:
        """Between the nearest scenes of two parts, `train-test`, where they say where they lie."""
        return {"-".join(pair): gap.distance_m for pair, gap in self.gaps.items()}

    def class_counts(self, part: str) -> list[int]:
        """What is labelled of each class in a part; empty for an empty part."""
        counts = [found.class_counts for found in self.scans[part]]
        return [int(count) for count in sum(counts[1:], counts[0])] if counts else []


def scan_splits(
    parts: Splits,
    *,
    window: int | None,
    metadata: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    faults: ErrorCollector | None = None,
) -> ScannedData:
    """Read all scenes of `parts` once (see `scan`).

    Without a `window` it is the side of the largest scene. `progress` is called with each scene
    that was read. Raises `GeotuneError` for faults in the files and where a file does not say what
    `metadata` asks; `faults` may keep what is wrong with single files.
    """
    faults = faults or ErrorCollector()
    scenes = [scene for part in parts.values() for scene in part]
    with faults.catch(None, scenes[0].raster.path):
        check_metadata({scene.name: scene.raster for scene in scenes}, metadata)
    window = fitting_window(scenes, window)
    results = iter(scan(scenes, window, threads=threads, progress=progress, faults=faults))
    read = {
        part: [(scene, found) for scene in members if (found := next(results)) is not None]
        for part, members in parts.items()
    }
    left = {part: [scene for scene, _ in members] for part, members in read.items()}
    require_splits(left, scenes)
    scans = {part: [found for _, found in members] for part, members in read.items()}
    placed = {part: [footprint(scene) for scene in members] for part, members in left.items()}
    known = {part: [one for one in places if one] for part, places in placed.items()}
    gaps = {
        (one, other): near
        for one, other in combinations(left, 2)
        if (near := group_distance(known[one], known[other])) is not None
    }
    unplaced = [
        scene.name
        for part, members in left.items()
        for scene, place in zip(members, placed[part], strict=True)
        if place is None
    ]
    return ScannedData(left, scans, window, gaps, unplaced)


def fitting_window(scenes: Sequence[Scene], window: int | None) -> int:
    """The side of windows. Raises `GeotuneError` where one would cut what has to stay whole."""
    largest = max(scenes, key=lambda scene: max(scene.shape))
    if window is None:
        return max(largest.shape)
    if largest.labels.image_level and window < max(largest.shape):
        height, width = largest.shape
        raise GeotuneError(
            f"{largest.raster.path}: is {height}x{width} pixels, larger than data.window {window}; "
            "a label is of the whole image: raise data.window, or leave it out"
        )
    return window
