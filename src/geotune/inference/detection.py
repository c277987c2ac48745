"""Detect the objects of a scene, and write them to GeoPackage and GeoJSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from geotune.boxes.oriented import centres
from geotune.boxes.structures import Detections
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import Image, RasterSource, has_data
from geotune.data.raster.windows import Window
from geotune.inference.detection_writers import LAYER, DetectionWriter, supports_geojson
from geotune.inference.geotiff import (
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    scene_notes,
)
from geotune.inference.merge_detections import DetectionMerger
from geotune.inference.novelty_map import NoveltyTracker
from geotune.inference.qgis import Geometry, MapLayer, class_style, write_qgis
from geotune.inference.sliding_window import WindowOptions
from geotune.inference.tiling import TilingPlan, window_starts
from geotune.types import model_inputs
from geotune.utils.colors import palette

DetectorFn = Callable[..., Sequence[Detections]]
"""Maps images `(B, C, H, W)`, float32 raw values with NaN, to the detections of each, in pixels."""


@dataclass(frozen=True)
class SceneDetections:
    """Result of a prediction.

    Attributes:
        name: the scene's name.
        package_path: GeoPackage with the layer `objects`.
        text_path: GeoJSON; None without a CRS that has an EPSG code.
        project_path: QGIS project.
        windows: number of windows computed.
        seconds: wall time.
        objects: number of objects of each class.
        notes: for the user.
        further_paths: files in further formats, see `FurtherFormats`.
        item_path: STAC item, if one was requested.
        novelty_path: Cloud-Optimised GeoTIFF of the novelty, see `NoveltyTracker`.
    """

    name: str
    package_path: Path
    text_path: Path | None
    project_path: Path | None
    windows: int
    seconds: float
    objects: dict[str, int]
    notes: tuple[str, ...]
    further_paths: tuple[Path, ...] = ()
    item_path: Path | None = None
    novelty_path: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The written files."""
        others = (self.text_path, self.novelty_path, self.project_path, self.item_path)
        written = [path for path in others if path is not None]
        return [self.package_path, *written, *self.further_paths]

    @property
    def summary(self) -> str:
        """A short description for display."""
        return ", ".join(f"{count} {name}" for name, count in self.objects.items())


def detect_scene(
    model: DetectorFn,
    source: RasterSource,
    out_dir: Path,
    options: WindowOptions,
    *,
    classes: Sequence[str],
    scores: Mapping[str, float],
    nms_threshold: float,
    points: bool,
    name: str,
    qgis: bool = True,
) -> SceneDetections:
    """Predict a scene and write its objects, see `write_detections`.

    Args:
        model: the detector.
        source: the scene.
        out_dir: created if needed.
        options: see `WindowOptions`; objects larger than the overlap are cut in every window.
        classes: names.
        scores: score threshold of each class.
        nms_threshold: an object is dropped if its IoU with a better one of its class exceeds this.
        points: whether to write points instead of boxes.
        name: file stem.
        qgis: whether to write style and project.

    Raises `GeotuneError` for values out of range, missing bands, outputs that are not finite, and
    files that cannot be read or written.
    """
    return write_detections(
        detect_windows(model, source, options),
        source,
        out_dir,
        options,
        classes=classes,
        scores=scores,
        nms_threshold=nms_threshold,
        points=points,
        name=name,
        qgis=qgis,
    )


class DetectedWindow(NamedTuple):
    """The detections in a window.

    Attributes:
        top: its first row.
        left: its first column.
        detections: in pixels of the window.
    """

    top: int
    left: int
    detections: Detections


def detect_windows(
    model: DetectorFn,
    source: RasterSource,
    options: WindowOptions,
    area: Window | None = None,
) -> Iterator[DetectedWindow]:
    """Detect the objects in each window with data, row by row.

    With `area` in the windows whose first pixel lies in that part of the scene. Parts that cover
    the scene together detect in each window once.
    """
    return (window for [window] in detect_together([model], source, options, area))


def detect_together(
    models: Sequence[DetectorFn],
    source: RasterSource,
    options: WindowOptions,
    area: Window | None = None,
) -> Iterator[list[DetectedWindow]]:
    """`detect_windows` of several models, which receive the same batches one after the other.

    Yields what each model detects in a window.
    """
    selected, plan = source.select(options.bands), _plan(source, options)
    part = area or plan.inside
    lefts = window_starts(source.shape[1], options.window, options.overlap)
    tops = [top for top in plan.tops if part.row <= top < part.row + part.height]
    lefts = tuple(left for left in lefts if part.col <= left < part.col + part.width)
    done = 0
    for top in tops:
        for start in range(0, len(lefts), options.batch_size):
            columns = lefts[start : start + options.batch_size]
            results = _detect_batch(models, selected, options, top, columns)
            for left, found in results.items():
                yield [DetectedWindow(top, left, each) for each in found]
            done += len(columns)
            if options.on_progress is not None:
                options.on_progress(done, len(tops) * len(lefts))


def _plan(source: RasterSource, options: WindowOptions) -> TilingPlan:
    return TilingPlan(source.shape, options.window, options.overlap, strip_width=source.shape[1])


def write_detections(
    windows: Iterable[DetectedWindow],
    source: RasterSource,
    out_dir: Path,
    options: WindowOptions,
    *,
    classes: Sequence[str],
    scores: Mapping[str, float],
    nms_threshold: float,
    points: bool,
    name: str,
    qgis: bool = True,
    novelty: NoveltyTracker | None = None,
) -> SceneDetections:
    """Write `<name>_objects.gpkg` and `<name>_objects.geojson` of a scene.

    Objects are in the CRS of the scene: boxes as polygons, or their centres as points. With `qgis`
    also a style and the project `<name>.qgs`. The files appear only when all are complete.
    `windows` come row by row; the other arguments and errors are those of `detect_scene`.
    """
    started = time.perf_counter()
    check_file_stem(name)
    plan = _plan(source, options)
    lefts = window_starts(source.shape[1], options.window, options.overlap)
    merger = DetectionMerger(plan.tops, lefts, options.window, source.shape, nms_threshold)
    thresholds = torch.tensor([scores[title] for title in classes])
    package, text = out_dir / f"{name}_objects.gpkg", out_dir / f"{name}_objects.geojson"
    novelty_path = out_dir / f"{name}_novelty.tif"
    geojson = supports_geojson(source)
    counts = np.zeros(len(classes), dtype=np.int64)
    computed = 0
    with (
        bounded_gdal_cache(),
        atomic_output(out_dir) as folder,
        DetectionWriter(
            folder / package.name,
            folder / text.name if geojson else None,
            source,
            classes,
            points=points,
            novelty=None if novelty is None else novelty.at,
        ) as files,
    ):

        def write(detections: Detections | None) -> None:
            if detections is None:
                return
            kept = detections[detections.scores >= thresholds[detections.classes]]
            files.write(kept.boxes.numpy(), kept.scores.numpy(), kept.classes.numpy())
            np.add.at(counts, kept.classes.numpy(), 1)

        for top, row in groupby(windows, lambda window: window.top):
            write(merger.pop_final(top))
            for window in row:
                merger.add(top, window.left, window.detections)
                computed += 1
        write(merger.pop_final())
        layers = []
        if novelty is not None:
            novelty.write(folder, name, source)
            layers.append(novelty.layer(novelty_path))
        if qgis:
            geometry: Geometry = "Point" if points else "Polygon"
            style = class_style("class", classes, palette(classes), geometry)
            layers.insert(0, MapLayer(package, LAYER, style, geometry, LAYER))
            write_qgis(folder, out_dir, name, source, layers)
    notes = scene_notes(source, computed)
    if not geojson:
        reason = "there is no CRS" if source.crs is None else "the CRS has no EPSG code"
        notes.append(
            f"{source.path}: {reason}, so no GeoJSON was written, which would be read as degrees"
        )
    return SceneDetections(
        name=name,
        package_path=package,
        text_path=text if geojson else None,
        project_path=out_dir / f"{name}.qgs" if qgis else None,
        windows=computed,
        seconds=time.perf_counter() - started,
        objects={title: int(counts[k]) for k, title in enumerate(classes)},
        notes=tuple(notes),
        novelty_path=None if novelty is None else novelty_path,
    )


def _detect_batch(
    models: Sequence[DetectorFn],
    source: RasterSource,
    options: WindowOptions,
    top: int,
    lefts: Sequence[int],
) -> dict[int, list[Detections]]:
    """Detections of each model in windows of a row that have data, by their first column."""
    windows = {left: Window(top, left, options.window, options.window) for left in lefts}
    views = {left: source.read(area) for left, area in windows.items()}
    filled = {left: view for left, view in views.items() if has_data(view).any()}
    if not filled:
        return {}
    times_locations = [
        time_and_location(source, windows[left], options.metadata) for left in filled
    ]
    inputs = model_inputs(
        np.stack(list(filled.values())), *map(list, zip(*times_locations, strict=True))
    )
    if options.on_areas is not None:
        options.on_areas([windows[left] for left in filled])
    inputs = {name: x.to(options.device) for name, x in inputs.items()}
    with torch.inference_mode():
        found = [model(**inputs) for model in models]
    return {
        left: [centred_on_data(each[i], view) for each in found]
        for i, (left, view) in enumerate(filled.items())
    }


def centred_on_data(detections: Detections, view: Image) -> Detections:
    """The detections in an image `(C, h, w)` whose centre is on a pixel with data."""
    valid = torch.from_numpy(has_data(view)).to(detections.boxes.device)
    columns, rows = centres(detections.boxes).long().unbind(dim=-1)
    height, width = valid.shape
    return detections[valid[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]]
