"""Label rasters: their classes, or the quantity that they hold."""

from __future__ import annotations

from typing import Any

from geotune.api.init.classes import ONE_CLASS, Request, require_task
from geotune.api.init.draft import ColorValue, Draft
from geotune.api.init.layout import PAGES, Layout
from geotune.api.init.mask_values import MaskValues, read_mask_values
from geotune.data.labels.raster_labels import hex_color
from geotune.errors import GeotuneError
from geotune.utils.progress import OnProgress
from geotune.utils.text import join_some, pluralize


def describe_masks(draft: Draft, layout: Layout, request: Request, on_progress: OnProgress) -> str:
    """Set the task and the classes of rasters. Returns a summary."""
    found = read_mask_values(layout.label_files, on_progress)
    count = f"{pluralize(len(layout.label_files), 'mask')}"
    if found.continuous or request.task == "regress":
        draft.set(
            "task.kind",
            require_task(request, "rasters of numbers", "regress"),
            "rasters with many values are read as a quantity; for classes: --task segment",
        )
        name = layout.label_files[0].parent.name
        draft.set("task.quantity", name or "value", "name and unit (task.unit) for reports")
        return f"{count} of numbers from {found.low:g} to {found.high:g}"
    require_task(request, "masks of classes", "segment", "regress")
    draft.set("task.kind", "segment")
    names = _mask_classes(draft, found, request)
    return f"{count} of {len(names)} classes: {join_some([*names], 8)}"


def _mask_classes(draft: Draft, found: MaskValues, request: Request) -> dict[str, int]:
    """Name the values of masks."""
    values = sorted(found.pixels)
    ignored = []
    if not found.colors and 255 in values and len(values) > 2:
        ignored = [255]
        values.remove(255)
    if len(values) < 2:
        raise GeotuneError(
            f"the masks hold only the value {', '.join(map(str, values)) or 'of no data'}; a "
            f"segmentation needs two classes or more; see {PAGES['scenes']}",
            code="class-count",
            key="task.classes",
        )
    if request.classes is not None and len(request.classes) != len(values):
        written = [hex_color(v) if found.colors else str(v) for v in values]
        raise GeotuneError(
            f"--classes: found {len(request.classes)} names, but the masks hold "
            f"{len(values)} values: {', '.join(written)}; give a name for each, in this order",
            code="class-count",
            key="task.classes",
        )
    names = list(request.classes or [])
    if not names and len(values) == 2 and values[0] == 0:
        names = ["background", ONE_CLASS]
    elif not names:
        names = [f"color_{v:06X}" if found.colors else f"class_{v}" for v in values]
    comment = (
        ""
        if request.classes
        else "masks do not name their values: rename the classes here and in data.class_values"
    )
    draft.set("task.classes", names, comment)
    mapping: dict[str, Any] = dict(zip(names, values, strict=True))
    if found.colors:
        mapping = {name: ColorValue(value) for name, value in mapping.items()}
    total = sum(found.pixels.values())
    shares = ", ".join(
        f"{name} {found.pixels[value] / total:.1%}"
        for name, value in zip(names, values, strict=True)
    )
    draft.set("data.class_values", mapping, f"value of each class in the masks; pixels: {shares}")
    if ignored:
        draft.set(
            "data.ignore_values", ignored, "pixels without a label; if 255 is a class, name it"
        )
    return dict(zip(names, values, strict=True))
