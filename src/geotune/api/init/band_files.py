"""Layouts with a file for each band of a scene."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from geotune.api.init.layout import Layout, label_kind
from geotune.api.init.pairing import MASK_WORDS, bare_names
from geotune.data.scenes.find import FoundScene, find_scenes, first_file
from geotune.errors import GeotuneError
from geotune.utils.text import nfc

BAND = re.compile(
    r"B\d{1,2}A?|band_?\d{1,2}|[VH][VH]|red|green|blue|nir|rededge\d?|swir\d?|coastal",
    re.IGNORECASE,
)


def band_files(folder: Path, images: Sequence[Path], labels: Sequence[Path]) -> Layout | None:
    """The layout with a file per band; None if the names of the images are not those of bands."""
    tokens = [re.split(r"[_\-.]", path.stem)[-1] for path in images]
    if len(images) < 2 or not all(BAND.fullmatch(token) for token in tokens):
        return None
    for pattern in _patterns(images):
        try:
            found = find_scenes(pattern)
        except GeotuneError:
            continue
        if _complete(found, images):
            return _with_labels(pattern, found, labels)
    return None


def _patterns(images: Sequence[Path]) -> Iterator[str]:
    """Patterns that files of bands may have."""
    parents = {path.parent for path in images}
    for suffix in sorted({path.suffix for path in images}):
        if len(parents) == 1:
            yield f"{images[0].parent}/{{band}}{suffix}"
            yield f"{images[0].parent}/{{scene}}_{{band}}{suffix}"
        elif len({parent.parent for parent in parents}) == 1:
            above = images[0].parent.parent
            yield f"{above}/{{scene}}/{{band}}{suffix}"
            yield f"{above}/{{scene}}/{{scene}}_{{band}}{suffix}"
            yield f"{above}/{{scene}}/*_{{band}}{suffix}"


def _complete(found: Mapping[str, FoundScene], images: Sequence[Path]) -> bool:
    """Whether scenes have the same bands, and all images are in one."""
    scenes = [scene.files for scene in found.values()]
    bands = {tuple(sorted(files)) for files in scenes if isinstance(files, dict)}
    total = sum(len(files) for files in scenes if isinstance(files, dict))
    return (
        total == len(images)
        and len(bands) == 1
        and len(min(bands)) > 1
        and all(BAND.fullmatch(str(band)) for band in min(bands))
    )


def _with_labels(
    pattern: str, found: Mapping[str, FoundScene], labels: Sequence[Path]
) -> Layout | None:
    """The layout with a label file for each scene, or one for all."""
    rules: dict[str, dict[str, Path]] = {}
    for label in labels:
        for name, (start, end) in bare_names(label.stem, MASK_WORDS):
            if name in found:
                rule = f"{label.parent}/{start}{{stem}}{end}{label.suffix}"
                rules.setdefault(rule, {})[name] = label
    complete = {rule: files for rule, files in rules.items() if len(files) == len(found)}
    if complete:
        rule, by_name = next(iter(complete.items()))
    elif len(labels) == 1 or len(found) == 1:
        shared = [label for label in labels if label_kind(label) != "objects"]
        if not shared:
            return None
        rule, by_name = str(shared[0]), dict.fromkeys(found, shared[0])
    else:
        return None
    files = {first_file(scene.files): scene.files for scene in found.values()}
    by_image: dict[Path, Path | None] = {
        first_file(scene.files): by_name[nfc(name)] for name, scene in found.items()
    }
    data = {"kind": "scenes", "scenes": pattern, "labels": rule}
    return Layout(data, list(files), by_image, label_kind(Path(rule)), files=files)
