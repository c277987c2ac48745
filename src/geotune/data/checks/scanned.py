"""Scanned splits, the input of all checks and window datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from geotune.data.checks.scan import SceneScan, scan_scenes
from geotune.data.issues import ErrorCollector
from geotune.data.raster.metadata import check_metadata
from geotune.data.scenes.footprints import Distance, footprint, group_distance
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, check_not_empty
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class ScannedData:
    """Split scenes and the result of their scan.

    Attributes:
        parts: the scenes of each part that could be read.
        scans: what each of them holds.
        window: side of the windows in pixels.
        gaps: how far apart two parts are, by their names; without those of which no scene says
            where it lies.
        unplaced: scenes that do not say where they lie.
    """

    splits: Splits
    scans: dict[str, list[SceneScan]]
    window: int
    distances: dict[tuple[str, str], Distance]
    without_location: list[str]

    @property
    def scenes(self) -> list[tuple[str, Scene, SceneScan]]:
        """All scenes, each with its part and what was found in it."""
        return [
            (part, scene, found)
            for part, members in self.splits.items()
            for scene, found in zip(members, self.scans[part], strict=True)
        ]

    @property
    def distances_m(self) -> dict[str, float]:
        """Between the nearest scenes of two parts, `train-test`, where they say where they lie."""
        return {"-".join(pair): gap.distance_m for pair, gap in self.distances.items()}

    def class_counts(self, split: str) -> list[int]:
        """What is labelled of each class in a part; empty for an empty part."""
        counts = [found.class_counts for found in self.scans[split]]
        return [int(count) for count in sum(counts[1:], counts[0])] if counts else []


def scan_splits(
    splits: Splits,
    *,
    window: int | None,
    metadata: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    errors: ErrorCollector | None = None,
) -> ScannedData:
    """Read all scenes of `parts` once (see `scan`).

    Without a `window` it is the side of the largest scene. `progress` is called with each scene
    that was read. Raises `GeotuneError` for errors in the files and where a file does not say what
    `metadata` asks; `errors` may keep what is wrong with single files.
    """
    errors = errors or ErrorCollector()
    scenes = [scene for part in splits.values() for scene in part]
    with errors.catch(None, scenes[0].raster.path):
        check_metadata({scene.name: scene.raster for scene in scenes}, metadata)
    window = resolve_window(scenes, window)
    results = iter(scan_scenes(scenes, window, threads=threads, progress=progress, errors=errors))
    read = {
        part: [(scene, found) for scene in members if (found := next(results)) is not None]
        for part, members in splits.items()
    }
    left = {part: [scene for scene, _ in members] for part, members in read.items()}
    check_not_empty(left, scenes)
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


def resolve_window(scenes: Sequence[Scene], window: int | None) -> int:
    """The side of windows. Raises `GeotuneError` where one would cut what has to stay whole."""
    largest = max(scenes, key=lambda scene: max(scene.shape))
    if window is None:
        return max(largest.shape)
    if largest.labels.image_level and window < max(largest.shape):
        height, width = largest.shape
        raise GeotuneError(
            f"{largest.raster.path}: {height}x{width} pixels, larger than data.window {window}; "
            "labels are of whole images: increase data.window, or remove it",
            code="window-too-small",
            key="data.window",
            file=largest.raster.path,
        )
    return window
