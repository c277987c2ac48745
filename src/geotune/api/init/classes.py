"""Classes that labels state, and what the user requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geotune.api.init.draft import Draft
from geotune.api.init.layout import PAGES
from geotune.data.labels.class_mapping import as_integer
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, pluralize

ONE_CLASS = "object"
"""The class of labels that state none."""

RENAME = "value of each class in the labels: rename classes in both"


@dataclass(frozen=True)
class Request:
    """What the user asked for; None for what `init` is to decide.

    Attributes:
        task: its kind.
        classes: their names.
        class_field: attribute of vector labels with the class; `""` for none.
    """

    task: str | None = None
    classes: Sequence[str] | None = None
    class_field: str | None = None


def require_task(request: Request, found: str, *tasks: str) -> str:
    """The task: the requested one, or the first of those that the labels are for."""
    if request.task is None or request.task in tasks:
        return request.task or tasks[0]
    raise GeotuneError(
        f"--task {request.task}: the labels are {found}, which are for {' or '.join(tasks)}; "
        f"choose one of these, or give other labels; see {PAGES['init']}",
        code="option-not-applicable",
        key="task.kind",
    )


def class_names(counts: Mapping[Any, int]) -> dict[str, Any]:
    """A name for each value of the class; numbers first, in their order."""
    names: dict[str, Any] = {}
    for value in sorted(counts, key=lambda v: (as_integer(v) is None, as_integer(v) or 0, str(v))):
        number = as_integer(value)
        text = ONE_CLASS if value is None else str(value).strip() or "unknown"
        names[text if number is None else f"class_{number}"] = value
    return names


def requested_names(request: Request, names: Mapping[str, Any]) -> dict[str, Any]:
    """The requested classes with their values: some of those in the labels, or new names for all.

    Raises `GeotuneError` for other names.
    """
    if request.classes is None:
        return dict(names)
    known = {name.casefold(): value for name, value in names.items()}
    if any(name.casefold() in known for name in request.classes):
        return {name: known.get(name.casefold(), name) for name in request.classes}
    if len(request.classes) == len(names):
        return dict(zip(request.classes, names.values(), strict=True))
    raise GeotuneError(
        f"--classes: found {', '.join(request.classes)}, but the labels hold "
        f"{join_some([*names])}; give names among these, or a new name for each, in this order",
        code="class-unknown",
        key="task.classes",
    )


def set_class_values(draft: Draft, names: Mapping[str, Any]) -> None:
    """Set `data.class_values` if names differ from what the labels hold."""
    known = [(name, str(value).strip()) for name, value in names.items() if value is not None]
    if any(value.casefold() != name.casefold() for name, value in known):
        values = {n: v if (k := as_integer(v)) is None else k for n, v in names.items()}
        draft.set("data.class_values", values, RENAME)


def set_object_classes(draft: Draft, names: Mapping[str, Any], request: Request) -> None:
    """Set the classes of objects."""
    chosen = requested_names(request, names)
    comment = "the labels state no class: name it" if [*chosen] == [ONE_CLASS] else ""
    draft.set("task.classes", [*chosen], comment)
    set_class_values(draft, chosen)
    left = [name for name, value in names.items() if value not in chosen.values()]
    if left:
        text = f"objects that are not in task.classes: {join_some(left)}"
        draft.set("data.other_classes", "leave_out", text)


def set_point_task(draft: Draft, request: Request, names: Mapping[str, Any], side_px: int) -> None:
    """Set the task of points: to find them as boxes of `side_px`, or to count them."""
    task = require_task(request, "points", "detect", "density")
    draft.set("task.kind", task, "" if request.task else "to count only: --task density")
    if task == "density":
        chosen = [*requested_names(request, names)]
        draft.set("task.objects", chosen[0] if len(chosen) == 1 else ONE_CLASS)
        return
    draft.set("task.boxes", "points")
    draft.set(
        "data.point_size",
        f"{side_px} px",
        "side of an object around its point, a guess: set that of yours, such as 6 m",
    )
    set_object_classes(draft, names, request)


def list_counts(counts: Mapping[str, int], noun: str) -> str:
    """`228 polygons: ship 228`."""
    listed = join_some([f"{name} {count:,}" for name, count in counts.items()], 8)
    return f"{pluralize(sum(counts.values()), noun)}: {listed}"
