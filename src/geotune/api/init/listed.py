"""Layouts of tables that list scenes, or images with a label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geotune.api.init.layout import Layout, label_kind
from geotune.data.issues import ErrorCollector
from geotune.data.raster.header import read_header
from geotune.data.scenes.find import first_file
from geotune.data.scenes.table import read_scene_table
from geotune.data.text_io import read_csv
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

TABLE_COLUMNS = ("label", "labels", "value")
"""Columns of a table of labelled images, one of which is beside `path`."""


def from_table(tables: Sequence[Path]) -> Layout | None:
    """The layout of a table of scenes or of labelled images; the most complete of several."""
    layouts = []
    for path in tables:
        try:
            _, header = next(read_csv(path), ("", []))
        except GeotuneError:  # another file
            continue
        columns = [name.strip() for name in header]
        if "image" in columns and "label" in columns:
            entries = read_scene_table(path, None, None, ErrorCollector())
            labels = {first_file(entry.files): entry.label for entry in entries.values()}
            known = [label for label in labels.values() if label is not None]
            if known:
                data = {"kind": "scenes", "scenes": str(path)}
                kind = label_kind(known[0])
                files = {first_file(entry.files): entry.files for entry in entries.values()}
                layouts.append(Layout(data, list(labels), labels, kind, columns, files=files))
        elif "path" in columns and set(columns) & set(TABLE_COLUMNS):
            rows = [row for _, row in read_csv(path)][1:]
            index = columns.index("path")
            images = [path.parent / row[index].strip() for row in rows if len(row) > index]
            data = {"kind": "images", "images": str(path.parent), "labels": str(path)}
            labelled = dict.fromkeys(images, path)
            layouts.append(Layout(data, images, labelled, "image", columns))
    if not layouts:
        return None

    def rank(layout: Layout) -> tuple[bool, int, str]:
        first = next(iter(layout.label_files))
        bands = read_header(first).count if layout.kind == "raster" else 1
        return "split" not in layout.columns, bands, str(first)

    best, *rest = sorted(layouts, key=rank)
    if not rest:
        return best
    key = "data.scenes" if best.data["kind"] == "scenes" else "data.labels"
    names = join_some([str(each.data[key.partition(".")[2]]) for each in rest])
    return replace(best, comments={key: f"also in the folder: {names}"})
