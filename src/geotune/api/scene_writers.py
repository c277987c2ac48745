"""Functions that predict one scene, or a table of images, and write the files of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from geotune.data.raster.source import RasterSource
from geotune.inference.polygon_writer import PolygonOptions
from geotune.utils.progress import OnProgress

if TYPE_CHECKING:
    from torch import Tensor

    from geotune.factory.build_model import BuiltModel
    from geotune.inference.ensemble import Spread
    from geotune.inference.image_table import RowsFn
    from geotune.tasks.base import TableTask, ValueTask


class Predicted(Protocol):
    """A written prediction; each kind has further attributes.

    Attributes:
        name: of the scene, or of the table.
        windows: number of windows that the model processed.
        seconds: wall time.
        notes: messages for the user.
        files: written files, the map or table first.
        summary: the content in one line.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def windows(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def files(self) -> list[Path]: ...  # noqa: D102
    @property
    def summary(self) -> str: ...  # noqa: D102


SceneWriter = Callable[..., Predicted]
"""Predicts one scene with a model and writes the files."""


def class_map_writer(
    built: BuiltModel,
    probabilities: bool,
    polygons: PolygonOptions | bool,
    thresholds: Mapping[int, float],
) -> SceneWriter:
    """Of maps of classes; `thresholds` by index of the class."""
    from geotune.inference.segmentation import segment_scene

    return partial(
        segment_scene,
        classes=built.task.classes,
        probabilities=probabilities,
        polygons=polygons,
        thresholds=thresholds,
    )


def value_map_writer(built: BuiltModel) -> SceneWriter:
    """Of maps of numbers."""
    from geotune.inference.regression import regress_scene

    task = cast("ValueTask", built.task)
    return partial(
        regress_scene, quantity=task.classes[0], unit=task.unit, summed=task.report_total
    )


def object_writer(built: BuiltModel, scores: dict[str, float]) -> SceneWriter:
    """Of objects with the minimum score of their class."""
    from geotune.inference.detection import detect_scene

    task: Any = built.task
    postprocess: Any = built.model.decoder.postprocess
    return partial(
        detect_scene,
        classes=task.classes,
        scores=scores,
        nms_threshold=postprocess.nms_threshold,
        points=task.boxes == "points",
    )


def table_rows(task: TableTask, spread: Spread, members: int) -> RowsFn:
    """The columns of the task, with those of the uncertainty."""
    from geotune.inference.ensemble import binary_entropy, entropy

    if spread == "none":
        return task.rows

    def rows(outputs: Tensor) -> list[dict[str, str | float]]:
        means, extra = outputs[:, :-1], outputs[:, -1:]
        if spread == "deviation":
            columns = {"standard_deviation": extra}
        else:
            total = (entropy if spread == "entropy" else binary_entropy)(means)
            columns = {"entropy": total}
            if members > 1:
                columns["disagreement"] = (total - extra).clamp(min=0)
        return [
            {**row, **{name: float(values[i]) for name, values in columns.items()}}
            for i, row in enumerate(task.rows(means))
        ]

    return rows


def write_table(
    model: Callable[..., Any],
    rows: RowsFn,
    sources: dict[str, RasterSource],
    out: Path,
    on_progress: OnProgress,
    options: dict[str, Any],
) -> Predicted:
    """Predict images and write their table."""
    from geotune.inference.image_table import write_image_table

    return write_image_table(
        model,
        sources,
        out,
        rows=rows,
        on_progress=partial(on_progress, "images"),
        **options,
    )
