"""Tasks by the `kind` in a recipe."""

from __future__ import annotations

from collections.abc import Callable

from geotune.tasks.base import Task
from geotune.tasks.classify import Classify
from geotune.tasks.density import Density
from geotune.tasks.detect import Detect
from geotune.tasks.regress import Regress
from geotune.tasks.segment import Segment

TASKS: dict[str, Callable[..., Task]] = {
    "segment": Segment,
    "detect": Detect,
    "classify": Classify,
    "regress": Regress,
    "density": Density,
}
"""Constructed as `TASKS[kind](**values)`."""
