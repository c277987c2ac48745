"""Labels that are missing, misplaced or too few."""

from __future__ import annotations

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue, Severity
from geotune.utils.text import join_some

LOOK_AT = {
    "pixel": "their labels and at data.nodata, data.ignore_values and data.unlabelled",
    "object": "their labels and at data.nodata; not every scene needs an object, but every part: "
    "data.split may have to be another",
    "image": "data.labels and data.nodata",
}
"""By what is labelled: why none may be."""


def check_labels(examined: ScannedData) -> list[Issue]:
    """Errors for parts without any label; warnings for scenes and classes without; notes."""
    return [*_parts(examined), *_scenes(examined), *_classes(examined), *_notes(examined)]


def _parts(examined: ScannedData) -> list[Issue]:
    found = []
    for part, members in examined.splits.items():
        if members and not sum(examined.class_counts(part)):
            names = [scene.name for scene in members]
            found.append(
                Issue(
                    "error",
                    "labels",
                    f"data.split.{part}: none of its scenes has a labelled "
                    f"{members[0].labels.label_unit} with data ({join_some(names, 10)}); look at "
                    f"{LOOK_AT[members[0].labels.label_unit]}",
                    members[0].labels.path,
                )
            )
    return found


def _scenes(examined: ScannedData) -> list[Issue]:
    found = []
    empty = []
    for _, scene, scan in examined.scenes:
        if not scan.pixels:
            text = f"{scene.raster.path}: no pixel has data, so it is left out"
            found.append(Issue("warning", "labels", text, scene.raster.path))
        elif scene.labels.overlaps is False:
            text = (
                f"{scene.labels.path}: none of its labels lies in its scene {scene.raster.path}; "
                "look whether both are in the CRS that they state"
            )
            found.append(Issue("warning", "labels", text, scene.labels.path))
        elif not scan.class_counts.any():
            empty.append(scene)
    if empty:
        unit, names = empty[0].labels.label_unit, [str(scene.labels.path) for scene in empty]
        listed = join_some(list(dict.fromkeys(names)))
        text = f"no {unit} is labelled in {len(empty)} of {len(examined.scenes)} scenes: {listed}"
        # of objects that is a fact about the scene, of pixels a label that says nothing
        severity: Severity = "note" if unit == "object" else "warning"
        found.append(Issue(severity, "labels", text, empty[0].labels.path))
    return found


def _classes(examined: ScannedData) -> list[Issue]:
    found = []
    for part, members in examined.splits.items():
        counts = examined.class_counts(part)
        if members and sum(counts):
            classes, unit = members[0].labels.classes, members[0].labels.label_unit
            absent = [name for name, count in zip(classes, counts, strict=True) if not count]
            if absent:
                text = f"no {unit} of {', '.join(absent)} in the {part} part"
                found.append(Issue("warning", "labels", text))
    return found


def _notes(examined: ScannedData) -> list[Issue]:
    """How the label files were understood; what is true of all files is said once."""
    said = {
        note: scene.labels.path for _, scene, _ in examined.scenes for note in scene.labels.notes
    }
    return [Issue("note", "labels", note, path) for note, path in said.items()]
