"""Defaults that a published data set sets in a recipe, and the checks against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geotune.config.base import invalid
from geotune.config.task_options import DetectOptions, TaskSection
from geotune.datasets.registry import get_dataset_info


def with_published_defaults(values: Any) -> Any:
    """Add the classes and the window of the recipe's published data set, if it has one.

    Raises a validation error for an unknown data set, and for a task that it has no labels for.
    """
    if not isinstance(values, Mapping):
        return values
    data, task = values.get("data"), values.get("task")
    if not isinstance(data, Mapping) or not isinstance(task, Mapping):
        return values
    if data.get("kind") != "named" or "name" not in data:
        return values
    info = get_dataset_info(str(data["name"]))
    if task.get("kind") != info.task:
        raise invalid(
            "task.kind",
            f"found {task.get('kind')!r}, but data.name {info.name} is labelled for {info.task}",
        )
    window = info.window if data.get("window") is None else data["window"]
    classes = {"classes": list(info.classes)}
    return {**values, "data": {**data, "window": window}, "task": {**classes, **task}}


def check_published(name: str, task: TaskSection) -> None:
    """Raise a validation error if a task's classes or boxes are not the data set's."""
    info = get_dataset_info(name)
    classes = getattr(task, "classes", [])
    unknown = [c for c in classes if c not in info.classes]
    missing = [c for c in info.classes if c not in classes]
    if unknown or (missing and not isinstance(task, DetectOptions)):
        problem = f"has no {', '.join(unknown)}" if unknown else f"also has {', '.join(missing)}"
        raise invalid(
            "task.classes",
            f"data.name {name} {problem}; remove task.classes, or use {', '.join(info.classes)}",
        )
    if isinstance(task, DetectOptions):
        boxes = ["horizontal", "oriented"] if info.oriented else ["horizontal"]
        if task.boxes not in boxes:
            raise invalid(
                "task.boxes",
                f"found {task.boxes}, but data.name {name} has {' and '.join(boxes)} boxes",
            )
    if getattr(task, "multilabel", False):
        raise invalid("task.multilabel", f"images of data.name {name} have one class each")
