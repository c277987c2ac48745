"""Check of the labels: missing, misplaced or too few."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.checks.scan import SceneScan
from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue, Severity
from geotune.data.labels.density_labels import DensityLabels
from geotune.data.labels.pixel_data import NoLabels
from geotune.data.labels.polygon_labels import PolygonLabels
from geotune.data.labels.raster_labels import RasterLabels, hex_color
from geotune.data.labels.unread_attributes import possible_classes
from geotune.data.scenes.open_scenes import placement_advice
from geotune.utils.text import join_some, pluralize

ADVICE = {
    "pixel": "check their labels, data.nodata, data.ignore_values and data.unlabelled",
    "object": "check their labels and data.nodata; single scenes may be without objects, but each "
    "split needs some: consider another data.split",
    "image": "check data.labels and data.nodata",
}
"""What to check if a split has no labels, by label unit."""

OUTLYING = 10.0
"""Spreads of the other numbers beyond which one that repeats may be undeclared nodata."""

MIN_SPREAD = 1e-6
"""Spread of the others relative to the distance; below, they are one number."""

HUGE = 1e9
"""Magnitude of numbers that are not measured."""


def check_labels(scanned: ScannedData) -> list[Issue]:
    """Errors for unlabelled splits, warnings for unlabelled scenes and classes, and notes."""
    return [
        *_splits(scanned),
        *_scenes(scanned),
        *_classes(scanned),
        *_palettes(scanned),
        *_outlying_values(scanned),
        *_unread_attributes(scanned),
        *_notes(scanned),
    ]


def _splits(scanned: ScannedData) -> list[Issue]:
    issues = []
    for split, members in scanned.splits.items():
        if members and not sum(scanned.class_counts(split)):
            labels = members[0].labels
            names = join_some([scene.name for scene in members], 10)
            code, key = "split-unlabelled", f"data.split.{split}"
            text = (
                f"{key}: no scene has a labelled {labels.label_unit} with data ({names}); "
                f"{ADVICE[labels.label_unit]}"
            )
            if isinstance(labels, NoLabels):
                code = "images-empty"
                text = (
                    f"{key}: no image has a pixel with data ({names}); check data.nodata and "
                    "data.quality, or add images"
                )
            issues.append(Issue("error", "labels", text, labels.path, code=code, key=key))
    return issues


def _scenes(scanned: ScannedData) -> list[Issue]:
    issues = []
    unlabelled = []
    # a file for several scenes may have no label in some of them
    overlapping = {scene.labels.path for _, scene, _ in scanned.scenes if scene.labels.overlaps}
    for _, scene, scan in scanned.scenes:
        labels, raster = scene.labels, scene.raster
        if not scan.pixels:
            text = f"{raster.path}: no pixel has data; the scene is not used"
            issues.append(Issue("warning", "labels", text, raster.path))
        elif labels.overlaps is False and labels.path not in overlapping:
            text = (
                f"{labels.path}: none of its labels lies in its scene {raster.path}; "
                f"{placement_advice(labels.path)}"
            )
            issues.append(Issue("warning", "labels", text, labels.path))
        elif not scan.class_counts.any():
            unlabelled.append(labels)
    if unlabelled:
        unit = unlabelled[0].label_unit
        listed = join_some(list(dict.fromkeys(str(labels.path) for labels in unlabelled)))
        text = (
            f"no {unit} is labelled in {len(unlabelled)} of {len(scanned.scenes)} scenes: {listed}"
        )
        # a scene without objects is common, one without labelled pixels is useless
        severity: Severity = "note" if unit == "object" else "warning"
        issues.append(Issue(severity, "labels", text, unlabelled[0].path))
    return issues


def _classes(scanned: ScannedData) -> list[Issue]:
    issues = []
    for split, members in scanned.splits.items():
        counts = scanned.class_counts(split)
        if members and sum(counts):
            labels = members[0].labels
            absent = [name for name, n in zip(labels.classes, counts, strict=True) if not n]
            if absent:
                text = f"no {labels.label_unit} of {', '.join(absent)} in the {split} split"
                ignored = _ignored_by_default(scanned, split)
                issues.append(Issue("warning", "labels", text + ignored))
    return issues


def _ignored_by_default(scanned: ScannedData, split: str) -> str:
    """What to do if pixels of masks may be ignored that are a class: often masks are 0 and 255."""
    values = {
        value
        for scene, scan in zip(scanned.splits[split], scanned.scans[split], strict=True)
        if isinstance(scene.labels, RasterLabels) and scan.pixels > scan.class_counts.sum()
        and scene.labels.mapping.ignores_default
        for value in scene.labels.mapping.ignored
    }  # fmt: skip
    if not values:
        return ""
    listed = join_some([*map(str, sorted(values))])
    return (
        f"; pixels of the value {listed} have no label (data.ignore_values): if they are a class, "
        "map it with data.class_values"
    )


def _outlying_values(scanned: ScannedData) -> list[Issue]:
    """A warning for each extreme number that repeats far from the others: undeclared nodata."""
    found: dict[float, list[tuple[float, Path]]] = defaultdict(list)
    rows = [
        (s.labels.path, scan.stored_moments, scan.label_extremes)
        for _, s, scan in scanned.scenes
        if not isinstance(s.labels, DensityLabels)  # geotune computes these numbers
    ]
    if rows and scanned.scenes[0][1].labels.image_level:  # one number for each image
        rows = [(rows[0][0], *_joined([scan for _, _, scan in scanned.scenes]))]
    for path, (total, mean, sq_deviation), extremes in rows:
        for value, count in extremes:
            others = total - count
            if count < 2 or not others:
                continue
            rest = (total * mean - count * value) / others
            squares = sq_deviation - others * (rest - mean) ** 2 - count * (value - mean) ** 2
            spread, distance = math.sqrt(max(squares, 0) / others), abs(value - rest)
            # two levels have no outlier; beside huge numbers, the spread is lost in rounding
            varies = spread > MIN_SPREAD * distance or abs(value) > HUGE
            if varies and distance > OUTLYING * spread:
                found[value].append((count / total, path))
    issues = []
    for value, shares in found.items():
        share, path = max(shares)
        more = f", as in {pluralize(len(shares) - 1, 'other scene')}" if shares[1:] else ""
        advice = f"make it the file's nodata value (gdal_edit.py -a_nodata {value!r})"
        if scanned.scenes[0][1].labels.image_level:
            advice = "remove these rows"
        text = (
            f"{path}: {share:.1%} of its labels have the value {value:g}{more}, far from all "
            f"others; if that means no label, {advice}"
        )
        issues.append(Issue("warning", "labels", text, path))
    return issues


def _joined(
    scans: Sequence[SceneScan],
) -> tuple[tuple[int, float, float], tuple[tuple[float, int], ...]]:
    """Moments and extremes of the numbers of all images."""
    values = np.array([end for scan in scans for end, _ in scan.label_extremes])
    if not values.size:
        return (0, 0.0, 0.0), ()
    mean = float(values.mean())
    ends = sorted({float(values.min()), float(values.max())})
    extremes = tuple((end, int((values == end).sum())) for end in ends)
    return (values.size, mean, float(np.square(values - mean).sum())), extremes


def _palettes(scanned: ScannedData) -> list[Issue]:
    """A warning if the palettes of masks that are read by index contradict each other."""
    rows: list[tuple[str, str, Path]] = []
    for _, scene, scan in scanned.scenes:
        labels = scene.labels
        if isinstance(labels, RasterLabels):
            present = {i: c for i, c in labels.index_colors.items() if scan.class_counts[i]}
            colors = [*present.values()]
            rows += [
                (labels.classes[i], " or ".join(map(hex_color, color)), labels.path)
                for i, color in present.items()
                if colors.count(color) == 1
            ]
    for key, other in ((0, 1), (1, 0)):  # a class of several colours, a colour of several classes
        found: dict[object, dict[object, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            found[row[key]][row[other]].append(row[2])
        for name, paths in found.items():
            if len(paths) > 1:
                listed = [
                    f"{each} in {files[0]} ({pluralize(len(files), 'mask')})"
                    for each, files in paths.items()
                ]
                text = (
                    "masks with palettes are read by index, but their palettes differ: "
                    f"{name} is {join_some(listed, 3)}; if the colours are right, map them to "
                    "classes with data.class_values, as in water: 0x0000FF"
                )
                return [Issue("warning", "labels", text, rows[0][2], key="data.class_values")]
    return []


def _unread_attributes(scanned: ScannedData) -> list[Issue]:
    """A warning if labels without a class have attributes that look like one."""
    labels = {
        scene.labels.path: scene.labels
        for _, scene, _ in scanned.scenes
        if isinstance(scene.labels, PolygonLabels | ObjectLabels | DensityLabels)
    }
    if not labels:
        return []
    path, first = next(iter(labels.items()))
    attributes = possible_classes([each.unread for each in labels.values()], first.classes)
    if not attributes:
        return []
    listed = [
        f"an attribute {name} with the values "
        + join_some(
            [
                f"{repr(value) if value else 'none'} ({count})"
                for value, count in counts.most_common()
            ]
        )
        for name, counts in attributes.items()
    ]
    name = first.classes[-1]
    advice = (
        f"keep only {name} in the files"
        if isinstance(first, DensityLabels)
        else "set data.class_field to the attribute with the class"
    )
    text = (
        f"{path}: every feature counts as {name}, but there is {join_some(listed, 3)}; {advice}, "
        f'or set data.class_field: "" if all are {name}'
    )
    return [Issue("warning", "labels", text, path, key="data.class_field")]


def _notes(scanned: ScannedData) -> list[Issue]:
    """How label files were interpreted; the same note about several files once."""
    by_text: dict[tuple[str, bool], dict[Path, None]] = defaultdict(dict)
    for _, scene, _ in scanned.scenes:
        path = scene.labels.path
        for note in scene.labels.notes:
            text = note.removeprefix(f"{path}: ")
            by_text[text, text != note][path] = None
    issues = []
    for (text, of_file), paths in by_text.items():
        prefix = f"{join_some([*map(str, paths)])}: " if of_file else ""
        issues.append(Issue("note", "labels", prefix + text, next(iter(paths))))
    return issues
