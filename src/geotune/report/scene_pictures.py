"""Pictures of scenes with their labels, for the page of `geotune check`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.checks.scan import SceneScan
from geotune.data.labels.targets import (
    ImageClass,
    ImageClasses,
    ImageValue,
    ObjectDensity,
    PixelClasses,
    PixelValues,
)
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from geotune.report import number_format as fmt
from geotune.report.images import (
    MAX_SIDE,
    Picture,
    blocks,
    boxes_on,
    classes_on,
    dots,
    jpeg,
    value_map,
)
from geotune.report.rgb import to_rgb
from geotune.types import IGNORE, Target
from geotune.utils.colors import Color, is_background, palette
from geotune.utils.rgb_bands import shown_bands

MAX_SCENES = 6
"""Scenes that are shown of each split."""

MAX_IMAGES = 24
"""Images with one label each that are shown of each split."""

MAX_VALUES = 2**28
"""Pixels times bands that are read for pictures of whole scenes of all splits; details are shown of
the rest."""

TINT = 0.55
"""Opacity of the colour of a class on an image."""

SMALL_TINT = 0.85
"""The same where the image is shrunk and a label may be one pixel."""

STRIP = 512
"""Rows of labels that are read at a time, about."""

DETAIL = 160
"""Side of a detail in pixels; scenes up to `MAX_SIDE` are shown without."""


@dataclass(frozen=True)
class ScenePictures:
    """Pictures of one scene.

    Attributes:
        name: of the scene.
        caption: its labels in words.
        pictures: title and `data:` URL of each.
    """

    name: str
    caption: str
    pictures: Sequence[tuple[str, str]]


def picture_scenes(
    scenes: Sequence[Scene], scans: Sequence[SceneScan], *, points: bool, budget: int
) -> list[ScenePictures]:
    """Pictures of some scenes of a split, from those with many labels of rare classes to few.

    Args:
        scenes: of one split.
        scans: of each of them.
        points: objects are points.
        budget: pixels times bands to read at most for pictures of whole scenes.

    Scenes that cannot be read are left out.
    """
    if not scenes:
        return []
    whole = scenes[0].labels.image_level
    counts = np.stack([scan.class_counts for scan in scans])
    order = _by_rare_labels(scenes, counts)
    shown = order[
        np.unique(np.linspace(0, len(order) - 1, MAX_IMAGES if whole else MAX_SCENES).astype(int))
    ]
    common = int(counts.sum(axis=0).argmax())
    made = []
    for i in shown.tolist():
        scene, scan = scenes[i], scans[i]
        cost = scene.shape[0] * scene.shape[1] * 3
        overview = cost <= budget
        budget -= cost if overview else 0
        try:
            made.append(_picture(scene, scan, common, points=points, overview=overview))
        except GeotuneError:
            continue
    return made


def _by_rare_labels(scenes: Sequence[Scene], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of scenes by their share of the rarest classes; of images, classes in turn."""
    totals = np.maximum(counts.sum(axis=0), 1)
    if scenes[0].labels.image_level:
        classes = counts.argmax(axis=1)
        turn = np.zeros(len(scenes), dtype=np.int64)
        for index in np.unique(classes):
            turn[classes == index] = np.arange((classes == index).sum())
        return np.lexsort((classes, turn))
    return np.argsort(-(counts / totals).sum(axis=1), kind="stable")


def _picture(
    scene: Scene, scan: SceneScan, common: int, *, points: bool, overview: bool
) -> ScenePictures:
    draw = _Drawing(scene, common, points)
    pictures: list[tuple[str, Picture]] = []
    if overview:
        step = -(-max(scene.shape) // MAX_SIDE)
        image = draw.rgb(scene.raster.select(draw.bands).read_overview(step))
        pictures = draw.pair(image, draw.target(step), 1 / step, "")
    if max(scene.shape) > MAX_SIDE or not overview:
        window = _detail(scene, scan)
        image = draw.rgb(scene.raster.select(draw.bands).read(window))
        title = f"detail of {window.height}x{window.width} pixels"
        pictures += draw.pair(image, scene.read_labels(window), 1.0, title)
    caption = draw.caption(scan)
    return ScenePictures(scene.name, caption, [(title, jpeg(p)) for title, p in pictures])


def _detail(scene: Scene, scan: SceneScan) -> Window:
    """A window around a label of the scene's rarest class, or its middle."""
    height, width = (min(DETAIL, side) for side in scene.shape)
    row, col = scene.shape[0] // 2, scene.shape[1] // 2
    present = np.flatnonzero(scan.class_counts)
    if present.size:
        rarest = scan.positions[present[scan.class_counts[present].argmin()]]
        row, col = rarest[len(rarest) // 2].tolist()
    top = int(np.clip(row - height // 2, 0, scene.shape[0] - height))
    left = int(np.clip(col - width // 2, 0, scene.shape[1] - width))
    return Window(top, left, height, width)


class _Drawing:
    """Draws the images and labels of one scene."""

    def __init__(self, scene: Scene, common: int, points: bool) -> None:
        self.scene, self.points = scene, points
        names = scene.raster.bands
        self.bands = list(dict.fromkeys(names[i] for i in shown_bands(names)))
        self.classes = scene.labels.classes
        self.colors: tuple[Color, ...] = palette(self.classes)
        background = [i for i, name in enumerate(self.classes) if is_background(name)]
        self.plain = background[0] if background else None
        self.common = common

    def rgb(self, image: NDArray[np.float32]) -> Picture:
        """An image `(C, h, w)`, or the last of several dates, for display."""
        return to_rgb(image[:, -1] if image.ndim == 4 else image, self.bands)

    def target(self, step: int) -> Target:
        """The labels of the scene, of classes and numbers one for `step` x `step` pixels."""
        height, width = self.scene.shape
        kind = type(self.scene.read_labels(Window(0, 0, 1, 1)))
        if step == 1 or kind not in (PixelClasses, PixelValues, ObjectDensity):
            return self.scene.read_labels(Window(0, 0, height, width))
        rows, columns = max(1, STRIP // step) * step, -(-width // step) * step
        strips = (
            self.scene.read_labels(Window(top, 0, rows, columns)) for top in range(0, height, rows)
        )
        joined = np.concatenate([_reduced(strip, step, self.common) for strip in strips])
        joined = joined[: -(-height // step)]
        if kind is PixelClasses:
            return PixelClasses(joined.astype(np.uint8))
        if kind is ObjectDensity:
            return ObjectDensity(joined, joined.astype(np.int64))
        return PixelValues(joined)

    def pair(
        self, image: Picture, target: Target, scale: float, title: str
    ) -> list[tuple[str, Picture]]:
        """The image, and the image with its labels."""
        prefix = f"{title}: " if title else ""
        if isinstance(target, PixelClasses):
            opacity = TINT if scale == 1 else SMALL_TINT
            drawn = classes_on(image, target.mask, self.colors, self.plain, opacity)
            return [(f"{prefix}image", image), (f"{prefix}labels", drawn)]
        if isinstance(target, ObjectTarget):
            boxes = {
                self.colors[i]: target.boxes[target.classes == i] for i in np.unique(target.classes)
            }
            drawn = boxes_on(image, boxes, points=self.points, scale=scale)
            return [(f"{prefix}image", image), (f"{prefix}labels", drawn)]
        if isinstance(target, ObjectDensity):
            return [(f"{prefix}image", image), (f"{prefix}objects", dots(image, target.counts))]
        if isinstance(target, PixelValues):
            known = target.values[~np.isnan(target.values)]
            low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
            span = f"labels, {fmt.number(float(low))} to {fmt.number(float(high))}"
            drawn = value_map(target.values, float(low), float(high))
            return [(f"{prefix}image", image), (f"{prefix}{span}", drawn)]
        return [(title, image)]

    def caption(self, scan: SceneScan) -> str:
        """The labels in words."""
        target: Any = None
        if self.scene.labels.image_level:
            target = self.scene.read_labels(Window(0, 0, *self.scene.shape))
        if isinstance(target, ImageClass):
            return self.classes[target.index]
        if isinstance(target, ImageClasses):
            return (
                fmt.listing([n for n, yes in zip(self.classes, target.present, strict=True) if yes])
                or "no class"
            )
        if isinstance(target, ImageValue):
            return f"{self.classes[0]} {fmt.number(target.value)}"
        return describe_labels(self.scene, scan)


def describe_labels(scene: Scene, scan: SceneScan) -> str:
    """The labels of a scene in words: `ship 12, crane 3`, or shares of its pixels."""
    counts = [
        (n, int(c)) for n, c in zip(scene.labels.classes, scan.class_counts, strict=True) if c
    ]
    if not counts:
        return "no labels"
    if scene.labels.label_unit == "pixel":
        total = scene.shape[0] * scene.shape[1]
        return ", ".join(f"{name} {fmt.percent(count / total)}" for name, count in counts)
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _reduced(target: Any, step: int, common: int) -> NDArray[np.float32]:
    """Labels of blocks of `step` x `step` pixels: the rarer class, the objects, the mean number."""
    if isinstance(target, PixelClasses):
        cells = blocks(target.mask, step)
        rarer = np.where((cells != common) & (cells != IGNORE), cells, 0).max(axis=(1, 3))
        other = ((cells != common) & (cells != IGNORE)).any(axis=(1, 3))
        labelled = (cells != IGNORE).any(axis=(1, 3))
        reduced = np.where(other, rarer, np.where(labelled, common, IGNORE))
    elif isinstance(target, ObjectDensity):
        reduced = blocks(target.counts, step).sum(axis=(1, 3))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a block without any label
            reduced = np.nanmean(blocks(target.values, step), axis=(1, 3))
    return reduced.astype(np.float32)
