"""Scanned splits, the input of all checks and window datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from geotune.data.checks.scan import ScanStore, SceneScan, scan_scenes
from geotune.data.issues import ErrorCollector
from geotune.data.raster.metadata import check_metadata
from geotune.data.scenes.footprints import Distance, footprint, group_distance
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, check_not_empty
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class ScannedData:
    """The scenes of each split with the results of their scan.

    Attributes:
        splits: the readable scenes of each split.
        scans: the result of each of them.
        window: size of the windows in pixels.
        distances: distance between each two splits, if both have georeferenced scenes.
        without_location: names of scenes without georeference.
    """

    splits: Splits
    scans: dict[str, list[SceneScan]]
    window: int
    distances: dict[tuple[str, str], Distance]
    without_location: list[str]

    @property
    def scenes(self) -> list[tuple[str, Scene, SceneScan]]:
        """All scenes as (split, scene, scan)."""
        return [
            (split, scene, scan)
            for split, scenes in self.splits.items()
            for scene, scan in zip(scenes, self.scans[split], strict=True)
        ]

    @property
    def distances_m(self) -> dict[str, float]:
        """Distances in metres by names such as `train-test`."""
        return {"-".join(pair): distance.distance_m for pair, distance in self.distances.items()}

    def class_counts(self, split: str) -> list[int]:
        """Labels of each class in a split; empty for an empty split."""
        counts = [scan.class_counts for scan in self.scans[split]]
        return [int(count) for count in sum(counts[1:], counts[0])] if counts else []


def scan_splits(
    splits: Splits,
    *,
    window: int | None,
    metadata: Sequence[str] = (),
    store: ScanStore | None = None,
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    errors: ErrorCollector | None = None,
) -> ScannedData:
    """Read all scenes of `splits` once; see `scan_scenes`.

    Without `window`, windows are as large as the largest scene. `progress` is called after each
    scene. Raises `GeotuneError` for damaged files and for files without the requested `metadata`;
    `errors` may collect the errors of single files.
    """
    errors = errors or ErrorCollector()
    scenes = [scene for members in splits.values() for scene in members]
    with errors.catch(None, scenes[0].raster.path):
        check_metadata({scene.name: scene.raster for scene in scenes}, metadata)
    window = resolve_window(scenes, window)
    scans_of_all = scan_scenes(
        scenes, window, store=store, threads=threads, progress=progress, errors=errors
    )
    results = iter(scans_of_all)
    readable: Splits = {split: [] for split in splits}
    scans: dict[str, list[SceneScan]] = {split: [] for split in splits}
    for split, members in splits.items():
        for scene in members:
            if (scan := next(results)) is not None:
                readable[split].append(scene)
                scans[split].append(scan)
    check_not_empty(readable, scenes)
    without_location = []
    footprints = {}
    for split, members in readable.items():
        located = {scene.name: footprint(scene) for scene in members}
        without_location += [name for name, outline in located.items() if outline is None]
        footprints[split] = [outline for outline in located.values() if outline is not None]
    distances = {
        (one, other): distance
        for one, other in combinations(readable, 2)
        if (distance := group_distance(footprints[one], footprints[other])) is not None
    }
    return ScannedData(readable, scans, window, distances, without_location)


def resolve_window(scenes: Sequence[Scene], window: int | None) -> int:
    """The window size in pixels, by default that of the largest scene.

    Raises `GeotuneError` if a window is smaller than a scene with an image-level label.
    """
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
