"""The objects of a whole scene, as GeoPackage and GeoJSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geotune.boxes.oriented import centres
from geotune.boxes.structures import Detections
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import Image, RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.detection_writers import DetectionWriter, supports_geojson
from geotune.inference.geotiff import (
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.merge_detections import DetectionMerger
from geotune.inference.sliding_window import ProgressFn
from geotune.inference.tiling import TilingPlan, window_starts
from geotune.types import model_inputs

DetectorFn = Callable[..., Sequence[Detections]]
"""Images `(B, C, H, W)`, float32 raw values with NaN, to what is found in each, in its pixels."""


@dataclass(frozen=True)
class SceneDetections:
    """What a prediction left.

    Attributes:
        name: the scene's name.
        package_path: GeoPackage with the layer `objects`.
        text_path: GeoJSON; None where the scene's CRS has no name in it.
        windows: windows that the model saw.
        seconds: wall time.
        objects: how many of each class.
        notes: what a user should know about the result.
    """

    name: str
    package_path: Path
    text_path: Path | None
    windows: int
    seconds: float
    objects: dict[str, int]
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """What was written."""
        return [self.package_path, *([] if self.text_path is None else [self.text_path])]

    @property
    def summary(self) -> str:
        """What is in it, for people."""
        return ", ".join(f"{count} {name}" for name, count in self.objects.items())


def detect_scene(
    model: DetectorFn,
    source: RasterSource,
    out_dir: Path,
    *,
    bands: Sequence[str],
    classes: Sequence[str],
    scores: Mapping[str, float],
    nms_threshold: float,
    points: bool,
    name: str,
    window: int,
    overlap: float = 0.5,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    metadata: Sequence[str] = (),
    progress: ProgressFn | None = None,
) -> SceneDetections:
    """Find the objects of a scene and write `<name>_objects.gpkg` and `<name>_objects.geojson`.

    They are in the scene's CRS, boxes as polygons, or their middles as points. Both files are moved
    into place when they are complete; on any failure nothing is left behind.

    Args:
        model: what finds objects in windows.
        source: the scene.
        out_dir: made where it is missing.
        bands: what the model gets, in this order.
        classes: names of the objects' classes.
        scores: of each class the least score that counts.
        nms_threshold: IoU with a better one of its class above which an object goes.
        points: whether places are written, not boxes.
        name: the files' stem.
        window: side in pixels of what the model sees at once.
        overlap: least share of a window that its neighbour covers too. Objects larger than that
            are cut by every window.
        batch_size: windows at once.
        device: where the model computes.
        metadata: what of time and location the model is given.
        progress: told after each batch.

    Raises `GeotuneError` for values out of range, bands that the scene lacks, outputs that are not
    finite, and files that cannot be read or written.
    """
    started = time.perf_counter()
    check_file_stem(name)
    if batch_size < 1:
        raise GeotuneError(f"batch_size: found {batch_size}, expected at least 1")
    selected = source.select(bands)
    plan = TilingPlan(source.shape, window, overlap, strip_width=source.shape[1])
    lefts = window_starts(source.shape[1], window, overlap)
    merger = DetectionMerger(plan.tops, lefts, window, source.shape, nms_threshold)
    least = torch.tensor([scores[title] for title in classes])
    package, text = out_dir / f"{name}_objects.gpkg", out_dir / f"{name}_objects.geojson"
    named = supports_geojson(source)
    counts = np.zeros(len(classes), dtype=np.int64)
    seen = done = 0
    with (
        bounded_gdal_cache(),
        atomic_output(out_dir) as folder,
        DetectionWriter(
            folder / package.name,
            folder / text.name if named else None,
            source,
            classes,
            points=points,
        ) as files,
    ):

        def hand_on(found: Detections | None) -> None:
            if found is None:
                return
            kept = found[found.scores >= least[found.classes]]
            files.write(kept.boxes.numpy(), kept.scores.numpy(), kept.classes.numpy())
            np.add.at(counts, kept.classes.numpy(), 1)

        for top, batches in groupby(_batches(plan.tops, lefts, batch_size), lambda b: b[0]):
            hand_on(merger.pop_final(top))
            for _, columns in batches:
                looked = _detect_windows(model, selected, top, columns, window, device, metadata)
                for left, found in looked.items():
                    merger.add(top, left, found)
                seen, done = seen + len(looked), done + len(columns)
                if progress is not None:
                    progress(done, len(plan))
        hand_on(merger.pop_final())
    notes = scene_notes(source, seen)
    if not named:
        notes.append(f"{source.path}: its CRS has no EPSG code, so there is no GeoJSON")
    return SceneDetections(
        name=name,
        package_path=package,
        text_path=text if named else None,
        windows=seen,
        seconds=time.perf_counter() - started,
        objects={title: int(counts[k]) for k, title in enumerate(classes)},
        notes=tuple(notes),
    )


def _batches(
    tops: Sequence[int], lefts: Sequence[int], size: int
) -> Iterator[tuple[int, Sequence[int]]]:
    for top in tops:
        for start in range(0, len(lefts), size):
            yield top, lefts[start : start + size]


def _detect_windows(
    model: DetectorFn,
    source: RasterSource,
    top: int,
    lefts: Sequence[int],
    window: int,
    device: Any,
    metadata: Sequence[str],
) -> dict[int, Detections]:
    """What is found in windows of one row, by their first column; none where there is no data."""
    places = {left: Window(top, left, window, window) for left in lefts}
    views = {left: source.read(place) for left, place in places.items()}
    filled = {left: view for left, view in views.items() if has_data(view).any()}
    if not filled:
        return {}
    known = [time_and_location(source, places[left], metadata) for left in filled]
    inputs = model_inputs(np.stack(list(filled.values())), *map(list, zip(*known, strict=True)))
    with torch.inference_mode():
        found = model(**{name: x.to(device) for name, x in inputs.items()})
    return {
        left: each[_centred_on_data(each, view)]
        for (left, view), each in zip(filled.items(), found, strict=True)
    }


def _centred_on_data(found: Detections, view: Image) -> torch.Tensor:
    """Which of what is found in an image `(C, h, w)` have their middle where it has data."""
    valid = torch.from_numpy(has_data(view)).to(found.boxes.device)
    columns, rows = centres(found.boxes).long().unbind(dim=-1)
    height, width = valid.shape
    return valid[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
