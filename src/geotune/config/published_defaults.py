"""What a recipe need not say of a named data set, and what has to agree with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geotune.config.task_options import DetectOptions, TaskSection
from geotune.datasets.registry import named_dataset


def with_named(values: Any) -> Any:
    """A recipe's values with the classes and the window of its named data set, where it has one.

    Raises `ValueError` for a name that there is not, and for a task that it is not labelled for.
    """
    if not isinstance(values, Mapping):
        return values
    data, task = values.get("data"), values.get("task")
    if not isinstance(data, Mapping) or not isinstance(task, Mapping):
        return values
    if data.get("kind") != "named" or "name" not in data:
        return values
    about = named_dataset(str(data["name"]))
    if task.get("kind") != about.task:
        raise ValueError(
            f"task.kind: data.name {about.name} is labelled for {about.task}, found "
            f"{task.get('kind')!r}"
        )
    window = about.window if data.get("window") is None else data["window"]
    known = {"classes": list(about.classes)}
    return {**values, "data": {**data, "window": window}, "task": {**known, **task}}


def fits_named(name: str, task: TaskSection) -> None:
    """Raise `ValueError` where a task's classes or boxes are not the data set's."""
    about = named_dataset(name)
    classes = getattr(task, "classes", [])
    unknown = [c for c in classes if c not in about.classes]
    absent = [c for c in about.classes if c not in classes]
    if unknown or (absent and not isinstance(task, DetectOptions)):
        fault = f"has no {', '.join(unknown)}" if unknown else f"also has {', '.join(absent)}"
        raise ValueError(
            f"task.classes: data.name {name} {fault}; leave task.classes out, or name "
            f"{', '.join(about.classes)}"
        )
    if isinstance(task, DetectOptions) and task.boxes not in (
        "horizontal",
        *["oriented"] * about.oriented,
    ):
        raise ValueError(
            f"task.boxes: data.name {name} has "
            f"{'horizontal and oriented' if about.oriented else 'horizontal'} boxes, found "
            f"{task.boxes}"
        )
    if getattr(task, "multilabel", False):
        raise ValueError(f"task.multilabel: an image of {name} has one class")
