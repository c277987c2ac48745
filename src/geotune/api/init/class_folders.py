"""Layouts with a folder of images per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geotune.api.init.layout import Layout, find_lists, write_rows
from geotune.api.init.pairing import SPLIT_WORDS
from geotune.data.text_io import read_words
from geotune.utils.text import nfc


def class_folders(folder: Path, images: Sequence[Path], table: Path) -> Layout | None:
    """The layout with a folder of images per class, perhaps in folders named as splits.

    Splits in folders or lists become a table.
    """
    parts = [path.relative_to(folder).parent.parts for path in images]
    depth = min(map(len, parts))
    head = 0
    while head < depth and len({each[head] for each in parts}) == 1:
        head += 1
    if head == depth:
        return None
    root = folder.joinpath(*parts[0][:head])
    names = {each[head] for each in parts}
    if {name.lower() for name in names} <= set(SPLIT_WORDS) and head + 1 < depth:
        rows = [
            (path.relative_to(root).as_posix(), each[head + 1], SPLIT_WORDS[each[head].lower()])
            for path, each in zip(images, parts, strict=True)
        ]
        return _tabulated(root, images, rows, table, "the names of the folders")
    if len(images) < 2 * len(names):
        return None
    stems = {nfc(path.stem) for path in images}
    if len(stems) == len(images) and (lists := find_lists(folder, stems)):
        split_of = {
            Path(nfc(line[0])).stem: split
            for split, path in lists.items()
            for _, line in read_words(path)
        }
        rows = [
            (path.relative_to(root).as_posix(), each[head], split_of[nfc(path.stem)])
            for path, each in zip(images, parts, strict=True)
            if nfc(path.stem) in split_of
        ]
        return _tabulated(root, images, rows, table, "folders and lists of names")
    text = (
        f"each folder in {root} is a class; if they are scenes or places instead, the labels are "
        "missing"
    )
    by_image: dict[Path, Path | None] = {
        path: root / each[head] for path, each in zip(images, parts, strict=True)
    }
    data = {"kind": "images", "images": str(root)}
    return Layout(data, list(images), by_image, "image", comments={"data.images": text})


def _tabulated(
    root: Path, images: Sequence[Path], rows: Sequence[Sequence[str]], table: Path, source: str
) -> Layout:
    header = ("path", "label", "split")
    write_rows(table, [header, *rows])
    data = {"kind": "images", "images": str(root), "labels": str(table)}
    labels: dict[Path, Path | None] = dict.fromkeys(images, table)
    comments = {"data.labels": f"written by geotune init from {source}"}
    return Layout(data, list(images), labels, "image", header, comments)
