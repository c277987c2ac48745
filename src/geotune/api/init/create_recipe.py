"""`geotune init`: write a recipe for a folder of imagery and labels."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geotune.api.checking import find_data_issues
from geotune.api.init.classes import Request
from geotune.api.init.draft import HINT, Draft
from geotune.api.init.find_layout import find_layout
from geotune.api.init.labels import describe_labels
from geotune.api.init.layout import PAGES, Layout
from geotune.api.init.published import set_published
from geotune.api.init.settings import (
    name_bands,
    set_backbone,
    set_decoder,
    set_length,
    set_training,
    set_window,
)
from geotune.api.init.splits import SplitChoice, split_choices
from geotune.api.recipes import OnMessage, ignore_message
from geotune.data.checks.scan import SceneScan, scan_scenes
from geotune.data.checks.scan_cache import ScanCache, default_path
from geotune.data.issues import Issue
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from geotune.factory.open_data import open_data
from geotune.utils.atomic import check_writable, write_atomically
from geotune.utils.progress import OnProgress, ignore_progress
from geotune.utils.text import join_some, pluralize

MAX_SPLITS = 6
"""Splits that are tried until one has no error."""


@dataclass(frozen=True)
class InitResult:
    """The outcome of `init`.

    Attributes:
        recipe: the file.
        found: what the folder holds, in sentences.
        choices: comments of the recipe about choices, by key.
        issues: errors and warnings that `check` reports.
    """

    recipe: Path
    found: list[str]
    choices: dict[str, str]
    issues: list[Issue]


def init(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    class_field: str | None = None,
    bands: Sequence[str] | None = None,
    backbone: str | None = None,
    overwrite: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> InitResult:
    """Write a commented recipe for the imagery and labels in a folder.

    Args:
        folder: with images and labels, in any of the layouts of `docs/how-to/init.md`.
        out: the recipe; by default `<folder name>.yaml`.
        task: `segment`, `detect`, `classify`, `regress` or `density`; by default from the labels.
        classes: their names; for masks in ascending order of their values.
        class_field: attribute of vector labels with the class; `""` for none.
        bands: names of the bands in file order.
        backbone: its name, as in `geotune list backbones`.
        overwrite: replace an existing recipe.
        on_message: receives progress messages.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` for a folder without images or labels, labels that match no image, images
    with different bands, and an existing recipe.
    """
    folder = Path(folder)
    out = Path(f"{folder.resolve().name}.yaml") if out is None else Path(out)
    table = out.with_name(f"{out.stem}_scenes.csv")
    for path in (out, table):
        if path.exists() and not overwrite:
            raise GeotuneError(
                f"{path}: exists; choose another file with --out, or replace it with --overwrite",
                code="output-exists",
                file=path,
            )
    check_writable(out)
    if bands is not None and not bands:
        raise GeotuneError(
            "--bands: found no name; give the names of the bands in file order, or leave it out",
            code="option-invalid",
            key="data.bands",
        )
    request = Request(task, classes, class_field)
    kept = table.exists()
    try:
        draft, found, issues = _draft(
            folder, table, request, bands, backbone, on_message, on_progress
        )
    except BaseException:
        if not kept:
            table.unlink(missing_ok=True)
        raise
    header = [
        f"Written by geotune init for {folder}.",
        *(f"{text[0].upper()}{text[1:]}." for text in found),
        HINT,
    ]
    write_atomically(out, draft.to_yaml(header).encode())
    return InitResult(out, found, dict(draft.comments), issues)


def _draft(
    folder: Path,
    table: Path,
    request: Request,
    bands: Sequence[str] | None,
    backbone: str | None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> tuple[Draft, list[str], list[Issue]]:
    """The recipe, what the folder holds, and the issues of the data."""
    on_message(f"looking at {folder}")
    layout = find_layout(folder, table)
    if request.class_field is not None and layout.kind != "vector":
        raise GeotuneError(
            f"--class-field {request.class_field}: the labels are not polygons or points in vector "
            f"files, which have attributes; leave it out; see {PAGES['init']}",
            code="option-not-applicable",
            key="data.class_field",
        )
    draft = Draft()
    for name, value in layout.data.items():
        draft.set(f"data.{name}", value, layout.comments.get(f"data.{name}", ""))
    if layout.kind == "published":
        title, known = set_published(draft, request)
        names, found = list(bands or known), [title]
    else:
        rasters = _open_images(layout, on_progress)
        names = list(bands) if bands else list(name_bands(draft, list(rasters.values())))
        if bands:
            draft.set("data.bands", names)
        found = [
            _describe(list(rasters.values())),
            describe_labels(draft, folder, layout, rasters, request, on_progress),
        ]
    draft.comments |= {k: v for k, v in layout.comments.items() if k.startswith("backbone.")}
    set_backbone(draft, backbone, names)
    draft.set("data.split", {"kind": "random"})
    set_decoder(draft, [])
    scenes = _open_scenes(draft)
    if layout.kind == "published":
        found.append(_describe([scene.raster for scene in scenes]))
    window = set_window(draft, scenes)
    set_decoder(draft, scenes)
    on_message("reading images and labels")
    try:
        scans = _scan(scenes, window, on_progress)
    except GeotuneError as error:
        if error.code != "pixels-invalid":
            raise
        text = "images have NaN pixels and declare no nodata value: read as pixels without data"
        draft.set("data.nodata", math.nan, text)
        scenes = _open_scenes(draft)
        scans = _scan(scenes, window, on_progress)
    issues = _set_split(draft, folder, layout, scenes, scans, window)
    set_length(draft, scenes, window)
    set_training(draft, on_message)
    draft.recipe()
    return draft, found, issues


def _open_images(layout: Layout, on_progress: OnProgress) -> dict[Path, RasterSource]:
    """The images, by path. Raises `GeotuneError` for images with different bands."""
    rasters = {}
    for path in layout.images:
        rasters[path] = open_raster(layout.files.get(path, path))
        on_progress("opening images", len(rasters), len(layout.images))
    counts = Counter(len(raster.bands) for raster in rasters.values())
    if len(counts) > 1:
        listed = "; ".join(
            f"{pluralize(count, 'image')} of {pluralize(bands, 'band')} ("
            + join_some([p.name for p, r in rasters.items() if len(r.bands) == bands], 2)
            + ")"
            for bands, count in counts.most_common()
        )
        first = next(iter(rasters))
        raise GeotuneError(
            f"{first.parent}: found {listed}; expected images with the same bands: move the others "
            "to a folder of their own; several sensors, dates or a file per band need a pattern "
            f"in data.scenes; see {PAGES['scenes']}",
            code="bands-inconsistent",
            key="data.scenes",
            file=first.parent,
        )
    return rasters


def _describe(rasters: Sequence[RasterSource]) -> str:
    """The images in one sentence: number, bands, size, resolution and CRS."""
    first = rasters[0]
    shapes = sorted({raster.shape for raster in rasters})
    size = f"{shapes[0][0]}x{shapes[0][1]}"
    if shapes[1:]:
        size += f" to {shapes[-1][0]}x{shapes[-1][1]}"
    places = Counter(str(raster.crs or "no CRS") for raster in rasters)
    gsds = sorted({round(r.gsd_m, 2) for r in rasters if r.gsd_m is not None})
    resolution = "unknown resolution"
    if gsds:
        resolution = f"{gsds[0]:g}{f' to {gsds[-1]:g}' if gsds[1:] else ''} m per pixel"
    bands = f"{pluralize(len(first.bands), 'band')}"
    if first.named:
        bands += f" ({join_some(first.bands, 6)})"
    return (
        f"{pluralize(len(rasters), 'image')} of {bands}, {size} pixels, {resolution}, "
        f"{join_some([place for place, _ in places.most_common()], 3)}"
    )


def _open_scenes(draft: Draft) -> list[Scene]:
    """The scenes with their labels. Raises `GeotuneError` if the readers refuse them."""
    try:
        return open_data(draft.recipe())
    except GeotuneError as error:
        raise GeotuneError(
            f"{error}; see {PAGES['scenes']}", code=error.code, key=error.key, file=error.file
        ) from error


def _scan(scenes: Sequence[Scene], window: int, on_progress: OnProgress) -> list[SceneScan]:
    """Read all scenes; `geotune check` and `fit` do not read them again."""
    done = 0

    def progress(scene: Scene) -> None:
        nonlocal done
        done += 1
        on_progress("reading scenes", done, len(scenes))

    with closing(ScanCache(default_path())) as store:
        found = scan_scenes(scenes, window, store=store, progress=progress)
    return [scan for scan in found if scan is not None]


def _set_split(
    draft: Draft,
    folder: Path,
    layout: Layout,
    scenes: Sequence[Scene],
    scans: Sequence[SceneScan],
    window: int,
) -> list[Issue]:
    """Set the first split without an error; that with the fewest if there is none.

    Returns its errors and warnings. Raises `GeotuneError` if the data cannot be split.
    """
    counts = np.stack([scan.class_counts for scan in scans])
    best: tuple[int, SplitChoice, list[Issue]] | None = None
    choices = split_choices(folder, layout, scenes, counts, window)
    for choice in itertools.islice(choices, MAX_SPLITS):
        draft.set("data.split", choice.values, choice.comment)
        issues, *_ = find_data_issues(draft.recipe())
        errors = sum(issue.severity == "error" for issue in issues)
        if best is None or errors < best[0]:
            best = errors, choice, issues
        if not errors:
            break
    if best is None:
        raise GeotuneError(
            f"{folder}: found {pluralize(len(scenes), 'scene')} of at most "
            f"{max(max(scene.shape) for scene in scenes)} pixels, too few to split into training "
            f"and validation; add scenes, or use larger ones; see {PAGES['splits']}",
            code="split-empty",
            key="data.split",
            file=folder,
        )
    _, choice, issues = best
    draft.set("data.split", choice.values, choice.comment)
    return [issue for issue in issues if issue.severity != "note"]


def init_to_dict(result: InitResult) -> dict[str, Any]:
    """The outcome as plain values, for JSON."""
    return {
        "recipe": str(result.recipe),
        "found": result.found,
        "choices": result.choices,
        "issues": [vars(issue) for issue in result.issues],
    }
