"""How one scene, or a table of images, is predicted, and the files of a task written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    from geotune.inference.sliding_window import OutputBlock
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


@dataclass(frozen=True)
class SceneSteps:
    """How a scene is predicted and written: blocks, pieces or windows, and the files made of them.

    Attributes:
        predict: `predict(model, source, windows, area=None)` yields what the model predicts in a
            part of a scene, or in all of it, from top to bottom.
        write: `write(predicted, source, out_dir, windows, name=, qgis=)` writes the files of a
            scene.
        channels: of the model's outputs, for maps.
        to_block: makes what `predict` yields of an `OutputBlock`, for maps.
    """

    predict: Callable[..., Iterator[Any]]
    write: Callable[..., Predicted]
    channels: int = 0
    to_block: Callable[[OutputBlock], Any] | None = None


def map_steps(
    built: BuiltModel,
    *,
    probabilities: bool,
    uncertainty: bool,
    members: int,
    polygons: PolygonOptions | bool,
    thresholds: Mapping[int, float],
) -> SceneSteps:
    """Of maps of classes; `thresholds` by index of the class."""
    from geotune.inference.class_blocks import ClassLayers, class_block, class_blocks
    from geotune.inference.segmentation import write_class_map

    layers = ClassLayers(
        classes=built.task.classes,
        probabilities=probabilities,
        uncertainty=uncertainty,
        members=members,
        thresholds=thresholds,
    )

    def write(
        blocks: Any, source: RasterSource, out_dir: Path, windows: Any, **options: Any
    ) -> Predicted:
        return write_class_map(blocks, source, out_dir, layers, polygons=polygons, **options)

    return SceneSteps(
        partial(class_blocks, layers=layers),
        write,
        layers.channels,
        partial(class_block, layers=layers),
    )


def value_steps(built: BuiltModel, *, uncertainty: bool) -> SceneSteps:
    """Of maps of numbers."""
    from geotune.inference.regression import value_block, value_blocks, write_value_map

    task = cast("ValueTask", built.task)

    def write(
        blocks: Any, source: RasterSource, out_dir: Path, windows: Any, **options: Any
    ) -> Predicted:
        return write_value_map(
            blocks,
            source,
            out_dir,
            quantity=task.classes[0],
            unit=task.unit,
            summed=task.report_total,
            uncertainty=uncertainty,
            **options,
        )

    predict = partial(value_blocks, uncertainty=uncertainty)
    return SceneSteps(predict, write, 2 if uncertainty else 1, value_block)


def object_steps(built: BuiltModel, scores: dict[str, float]) -> SceneSteps:
    """Of objects with the minimum score of their class."""
    from geotune.inference.detection import detect_windows, write_detections

    task: Any = built.task
    postprocess: Any = built.model.decoder.postprocess
    write = partial(
        write_detections,
        classes=task.classes,
        scores=scores,
        nms_threshold=postprocess.nms_threshold,
        points=task.boxes == "points",
    )
    return SceneSteps(detect_windows, write)


def with_notes(result: Any, notes: Sequence[str]) -> Predicted:
    """The result of a writer with further notes, before its own."""
    changed: Predicted = replace(result, notes=(*notes, *result.notes))
    return changed


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
