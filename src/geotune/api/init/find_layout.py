"""Find images and labels in a folder, and which label belongs to which image."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geotune.api.init.band_files import band_files
from geotune.api.init.class_folders import class_folders
from geotune.api.init.dates import HINT, describe_dates, places_of
from geotune.api.init.layout import PAGES, PLACE, Labels, Layout, label_kind, write_rows
from geotune.api.init.listed import from_table
from geotune.api.init.mask_values import read_mask_values
from geotune.api.init.pairing import (
    SPLIT_WORDS,
    Pairs,
    Rule,
    as_patterns,
    find_pairs,
    is_mask_name,
    split_of,
)
from geotune.api.init.published import published_layout
from geotune.data.annotations.formats import annotation_format, detect_format
from geotune.data.labels.vector_io import VECTOR_SUFFIXES, is_vector
from geotune.data.raster.header import read_header
from geotune.data.scenes.find import RASTER_SUFFIXES, is_image
from geotune.data.scenes.sentinel2 import is_safe, safe_bands
from geotune.errors import GeotuneError
from geotune.utils.paths import files_below, is_system_file
from geotune.utils.progress import ignore_progress
from geotune.utils.text import join_some, nfc, pluralize


def find_layout(folder: Path, table: Path) -> Layout:
    """Find images and labels in a folder.

    `table` is the CSV to write where no pattern describes the files. Raises `GeotuneError` if the
    folder is missing or empty, without labels, or with labels that match no image.
    """
    if not folder.is_dir():
        raise GeotuneError(
            f"{folder}: folder not found; give the folder that holds images and labels",
            code="file-missing",
            file=folder,
        )
    if is_safe(folder):
        raise GeotuneError(
            f"{folder}: is one Sentinel-2 product; give a folder that holds products and their "
            f"labels, such as polygons in one GeoPackage; see {PAGES['init']}",
            code="labels-missing",
            key="data.labels",
            file=folder,
        )
    if (known := published_layout(folder)) is not None:
        return known
    files = [
        path
        for path in files_below(folder, is_safe)
        if not is_system_file(path.relative_to(folder))
    ]
    listed = from_table([path for path in files if path.suffix.lower() == ".csv"])
    if listed is not None:
        return listed
    rasters = [path for path in files if is_image(path)]
    if not rasters:
        raise GeotuneError(
            f"{folder}: found {_by_suffix(files) or 'no file'}; expected images "
            f"({', '.join(RASTER_SUFFIXES)}, folders .SAFE) and their labels; see {PAGES['init']}",
            code="scenes-missing",
            file=folder,
        )
    images, masks = _separate_masks(folder, rasters)
    places = places_of(folder, images)
    others = [path for path in files if path not in {*rasters} and _may_be_labels(path)]
    found = (
        band_files(folder, images, [*masks, *others])
        or _per_place(folder, images, [*masks, *others], places, table)
        or _per_image(folder, images, masks, others, table)
        or _shared(folder, images, others, table)
    )
    if found is None and not masks and {path.suffix for path in others} <= {".csv", ".txt"}:
        found = class_folders(folder, images, table)
    if found is None:
        _check_json(others)
        raise _no_labels(folder, images, masks, others)
    return _with_products(_with_dates(found, places))


def _with_products(layout: Layout) -> Layout:
    """The layout with the files of each Sentinel-2 product."""
    files = {path: safe_bands(path) for path in layout.images if is_safe(path)}
    if not files:
        return layout
    text = (
        "Sentinel-2 products: each band from its finest file, on the grid of the finest band; "
        "backbone.bands may leave out some, such as those of 60 m (B01, B09, B10)"
    )
    return replace(layout, files=files, comments={**layout.comments, "backbone.bands": text})


def _with_dates(layout: Layout, places: Mapping[Path, Path]) -> Layout:
    """The layout with a comment if images show a place at several dates."""
    found = describe_dates({image: places[image] for image in layout.images if image in places})
    if found is None or layout.files:  # bands and dates as in a pattern
        return layout
    known = layout.comments.get("data.scenes")
    text = "; ".join(part for part in (known, found, HINT) if part)
    return replace(layout, comments={**layout.comments, "data.scenes": text})


# ---------------------------------------------------------------- a label file per image
def _separate_masks(folder: Path, rasters: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images and masks among rasters: by the names of files and folders, else by their bands."""
    masks = [path for path in rasters if is_mask_name(path.relative_to(folder))]
    if masks:
        chosen = set(masks)
        return [path for path in rasters if path not in chosen], masks
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in rasters:
        by_folder[path.parent].append(path)
    if len(by_folder) != 2:
        return list(rasters), []
    one, other = by_folder.values()
    if {path.stem for path in one} != {path.stem for path in other}:
        return list(rasters), []
    if any(is_safe(group[0]) for group in (one, other)):
        return (one, other) if is_safe(one[0]) else (other, one)
    headers = [read_header(group[0]) for group in (one, other)]
    bands = [header.count for header in headers]
    if bands == [1, 1] and headers[0].shape == headers[1].shape:
        many = [read_mask_values(group[:1], ignore_progress).continuous for group in (one, other)]
        if many[0] != many[1]:  # images have many values, masks few
            return (one, other) if many[0] else (other, one)
    if sorted(bands)[0] != 1 or bands[0] == bands[1]:
        return list(rasters), []
    return (one, other) if bands[1] == 1 else (other, one)


def _per_place(
    folder: Path,
    images: Sequence[Path],
    labels: Sequence[Path],
    places: Mapping[Path, Path],
    table: Path,
) -> Layout | None:
    """A table of images of several dates that share the label file of their place.

    None if labels have dates too, or no place has several.
    """
    if len({*places.values()}) == len(places):
        return None
    relative = [path.relative_to(folder) for path in labels]
    shared = find_pairs(list(dict.fromkeys(places.values())), relative)
    own = find_pairs([path.relative_to(folder) for path in images], relative)
    of_place = shared[0].labels if shared else {}
    known = {image: folder / of_place[p] for image, p in places.items() if p in of_place}
    if len(known) <= (len(own[0].labels) if own else 0):
        return None
    kind = label_kind(next(iter(known.values())))
    names = {image: places[image].stem for image in known}
    return _listed(folder, known, kind, table, {}, len(images) - len(known), names)


def _per_image(
    folder: Path,
    images: Sequence[Path],
    masks: Sequence[Path],
    others: Sequence[Path],
    table: Path,
) -> Layout | None:
    """The layout with a label file for each image."""
    relative = [path.relative_to(folder) for path in images]
    found = find_pairs(relative, [path.relative_to(folder) for path in (*masks, *others)])
    if not found or not found[0].labels:
        return None
    complete = [each for each in found if len(each.labels) >= 0.9 * len(found[0].labels)]
    best = min(complete, key=lambda each: _preference(folder, each))
    kind = label_kind(next(iter(best.labels.values())))
    comments = {}
    ours = best.rule.label_of(next(iter(best.labels)))
    also = {
        str(folder / label)
        for each in complete
        if (label := each.rule.label_of(next(iter(best.labels)))) not in (None, ours)
        and label in each.labels.values()
    }
    if also:
        comments["data.labels"] = f"the images also have other labels, such as {min(also)}"
    labels: dict[Path, Path | None] = {
        folder / image: folder / label for image, label in best.labels.items()
    }
    without = [path for path in images if path not in labels]
    if kind == "objects":  # images without a file may have no objects
        labels |= dict.fromkeys(without)
        without = []
    used = [path.relative_to(folder) for path in labels]
    patterns = as_patterns(folder, best.rule, used, best.labels.values())
    if patterns is None:
        return _listed(folder, labels, kind, table, comments, len(without))
    scenes, pattern = patterns
    data: dict[str, object] = {"kind": "scenes", "scenes": scenes, "labels": pattern}
    return Layout(
        data,
        list(labels),
        labels,
        kind,
        comments=comments,
        parts=_parts(labels, folder) if "{part}" in pattern else (),
    )


def _preference(folder: Path, pairs: Pairs) -> tuple[int, int, tuple[int, int]]:
    """Of several kinds of labels for the same images, vector files and single bands come first."""
    first = folder / next(iter(pairs.labels.values()))
    if label_kind(first) == "raster":
        return 1, read_header(first).count, pairs.rule.simplicity
    return 0 if is_vector(first) else 2, 0, pairs.rule.simplicity


def _parts(labels: Iterable[Path], folder: Path) -> list[str]:
    """The folders in the paths of images that are named as splits."""
    parts = {part for path in labels for part in path.relative_to(folder).parent.parts}
    return sorted(part for part in parts if part.lower() in SPLIT_WORDS)


def _listed(
    folder: Path,
    labels: Mapping[Path, Path | None],
    kind: Labels,
    table: Path,
    comments: Mapping[str, str],
    num_without: int,
    places: Mapping[Path, str] | None = None,
) -> Layout:
    """A table of the scenes that have labels, as no pattern describes these.

    `places` are the names of the places that images show, for a column of the table.
    """
    known = {image: label for image, label in labels.items() if label is not None}
    num_without += len(labels) - len(known)
    unique = len({image.stem for image in known}) == len(known)
    splits = {image: split_of(image.relative_to(folder)) for image in known}
    columns = ["image", "label", "name"]
    if {"train", "val"} <= {*splits.values()} and None not in splits.values():
        columns.append("split")
    elif places:
        columns.append(PLACE)
    rows: list[Sequence[str]] = [columns]
    for image, label in known.items():
        path = image.relative_to(folder).with_suffix("")
        name = path.name if unique else path.as_posix().replace("/", "_")
        files = (os.path.relpath(each, table.parent) for each in (image, label))
        last = places[image] if PLACE in columns and places else str(splits[image])
        rows.append([*files, name, last][: len(columns)])
    write_rows(table, rows)
    text = "written by geotune init"
    if num_without:
        text += f"; {pluralize(num_without, 'image')} without labels left out"
    data = {"kind": "scenes", "scenes": str(table)}
    return Layout(data, [*known], known, kind, columns, {**comments, "data.scenes": text})


# ---------------------------------------------------------------- label files for many images
def _shared(
    folder: Path, images: Sequence[Path], others: Sequence[Path], table: Path
) -> Layout | None:
    """The layout with one COCO or vector file for all images, or COCO files for some each."""
    labels = _in_coco(images, [path for path in others if path.suffix.lower() == ".json"])
    kind: Labels = "objects"
    if not labels:
        vectors = [path for path in others if is_vector(path) and path.suffix.lower() != ".json"]
        if len(vectors) != 1:
            return None
        kind, labels = "vector", dict.fromkeys(images, vectors[0])
    files = {*labels.values()}
    rule = Rule((), (), 0, ("", ""), ("", ""), "")
    patterns = as_patterns(folder, rule, [path.relative_to(folder) for path in labels], ())
    if len(files) > 1 or patterns is None:
        return _listed(folder, labels, kind, table, {}, len(images) - len(labels))
    data = {"kind": "scenes", "scenes": patterns[0], "labels": str(files.pop())}
    comments = {}
    if len(labels) > 1:
        comments["data.labels"] = "for all images: remove those that nobody labelled"
    return Layout(data, [*labels], labels, kind, comments=comments)


def _in_coco(images: Sequence[Path], files: Sequence[Path]) -> dict[Path, Path | None]:
    """The COCO file that lists each image; of several, the one of its split."""
    listed: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        try:
            list_images = annotation_format(detect_format([path])).list_images
        except GeotuneError:
            continue
        for stem in list_images(path) if list_images else ():
            listed[stem].append(path)
    found: dict[Path, Path | None] = {}
    for image in images:
        if candidates := listed.get(nfc(image.stem)):
            split = split_of(image)
            same = [path for path in candidates if split_of(path) == split]
            found[image] = (same or candidates)[0]
    return found


# ---------------------------------------------------------------- messages
def _check_json(files: Sequence[Path]) -> None:
    """Raise `GeotuneError` for a JSON file that cannot be read, and may hold the labels."""
    for path in (path for path in files if path.suffix.lower() == ".json"):
        try:
            detect_format([path])
        except GeotuneError as error:
            if error.code == "file-unreadable":
                raise


def _no_labels(
    folder: Path, images: Sequence[Path], masks: Sequence[Path], others: Sequence[Path]
) -> GeotuneError:
    labels = [*masks, *others]
    found = f"{pluralize(len(images), 'image')} ({_names(images)})"
    if not images:
        found = f"{pluralize(len(masks), 'mask')} ({_names(masks)})"
        missing = "expected images beside the masks, in a folder such as images/"
    elif labels:
        found += f" and {pluralize(len(labels), 'label file')} ({_names(labels)})"
        missing = (
            "but no label file is named as an image: give each the name of its image "
            "(harbour.tif, harbour.geojson; images/a.tif, masks/a.tif), or list the pairs in a CSV "
            "with the columns image,label"
        )
    else:
        missing = (
            "but no labels; to map them with a trained model: geotune predict RUN; to train, "
            "expected masks, polygons, boxes or points beside the images, or a "
            "folder of images per class"
        )
    return GeotuneError(
        f"{folder}: found {found}, {missing}; see {PAGES['init']}",
        code="labels-missing",
        key="data.labels",
        file=folder,
    )


def _names(paths: Sequence[Path]) -> str:
    return join_some([path.name for path in paths], 3)


def _by_suffix(files: Sequence[Path]) -> str:
    counts = Counter(path.suffix.lower() or "without suffix" for path in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))


def _may_be_labels(path: Path) -> bool:
    return path.suffix.lower() in (*VECTOR_SUFFIXES, ".csv", ".txt", ".xml")
