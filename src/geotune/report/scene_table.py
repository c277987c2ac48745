"""The table of scenes of the page of `geotune check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geotune.data.checks.scan import SceneScan
from geotune.data.scenes.scene import Scene
from geotune.report import number_format as fmt

MAX_ROWS = 500
MAX_CLASSES = 12
"""With more classes, the table has only the number of labels."""


@dataclass(frozen=True)
class SceneTable:
    """A row for each scene.

    Attributes:
        columns: their titles.
        rows: the cells of each scene.
        omitted: number of scenes without a row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    omitted: int


def scene_table(scenes: Sequence[tuple[str, Scene, SceneScan]]) -> SceneTable:
    """The table of scenes with their splits and scans."""
    first = scenes[0][1].labels
    classes = list(first.classes) if len(first.classes) <= MAX_CLASSES else []
    labelled = {"pixel": "labelled", "object": "objects", "image": "labels"}[first.label_unit]
    columns = ["scene", "split", "height x width", "bands", "CRS", "pixel size", labelled, *classes]
    if first.label_unit != "pixel" and len(classes) == 1:
        columns = columns[:-1]
    rows = [_row(*each, with_classes=len(columns) > 7) for each in scenes[:MAX_ROWS]]
    return SceneTable(columns, rows, max(0, len(scenes) - MAX_ROWS))


def _row(split: str, scene: Scene, scan: SceneScan, *, with_classes: bool) -> list[str]:
    raster, total = scene.raster, int(scan.class_counts.sum())
    height, width = scene.shape
    crs = raster.crs
    name = "none" if crs is None else (f"EPSG:{code}" if (code := crs.to_epsg()) else "other")
    cells = [
        scene.name,
        split,
        f"{height} x {width}",
        str(len(raster.bands)),
        name,
        "unknown" if raster.gsd_m is None else f"{raster.gsd_m:.3g} m",
    ]
    pixels = scene.labels.label_unit == "pixel"
    cells.append(fmt.percent(total / (height * width)) if pixels else fmt.count(total))
    if with_classes:
        counts = [int(count) for count in scan.class_counts]
        cells += [
            fmt.percent(c / total if total else 0) if pixels else fmt.count(c) for c in counts
        ]
    return cells
