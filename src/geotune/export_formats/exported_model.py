"""The module that is exported: raw pixel values in, predictions out."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from geotune.export_formats.select_detections import Candidates, best_candidates, select
from geotune.factory.build_model import BuiltModel
from geotune.model import Model
from geotune.tasks.classify import Classify
from geotune.tasks.detect import Detect
from geotune.tasks.segment import Segment

Layout = Literal["plain", "yolo"]
"""How objects are written: as a list of detections, or as YOLO does, before NMS."""


class ExportedModel(nn.Module):
    """A model with the post-processing of its task, for one kind of file.

    Args:
        built: the model, whose method is merged if it can be.
        layout: of objects.
        nodata: pixels of this value are treated as missing, like NaN; None if there is none.

    Attributes:
        input_names: `images`, and `time` and `location` if the backbone takes them.
        output_names: of the tensors that `forward` returns.
    """

    def __init__(
        self, built: BuiltModel, *, layout: Layout = "plain", nodata: float | None = None
    ) -> None:
        super().__init__()
        self.predictor = _Predictor(built.model, built.task, layout)
        self.layout = layout
        self.nodata = nodata
        self.input_names = ("images", *built.backbone.metadata)
        self.output_names = output_names(built.task, layout)
        self.eval()

    @property
    def model(self) -> Model:
        """The model."""
        return self.predictor.model

    @property
    def task(self) -> Any:
        """The task."""
        return self.predictor.task

    def halve(self) -> None:
        """Store the weights in half precision; they are computed with in single precision."""
        self.predictor.half()

    def forward(
        self, images: Tensor, time: Tensor | None = None, location: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Predictions for raw values `(B, C, H, W)`, not finite where invalid, or with dates `T`.

        Maps `(B, K, H, W)`, or `(B, K)` of whole images. Horizontal boxes `(M, 4)` and points
        `(M, 2)` of all images, with scores, classes and the index of their image, `(M)` each.
        Oriented boxes `(B, N, 5)`, scores and classes `(B, N)`, before NMS. In YOLO's layout
        `(B, 4 + K, N)`: centre, sides and class scores, with the angle in radians last.
        """
        if self.nodata is not None:
            images = torch.where(images == self.nodata, torch.nan, images)
        images = torch.where(images.isinf(), torch.nan, images)  # as rasters are read
        tensors = [*self.predictor.named_parameters(), *self.predictor.named_buffers()]
        single = {name: x.float() for name, x in tensors if x.dtype == torch.float16}
        outputs: tuple[Tensor, ...] = torch.func.functional_call(
            self.predictor, single, (images,), {"time": time, "location": location}
        )
        return outputs


class _Predictor(nn.Module):
    """From raw values to predictions, see `ExportedModel.forward`."""

    def __init__(self, model: Model, task: Any, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.layout = layout

    def forward(
        self, images: Tensor, *, time: Tensor | None, location: Tensor | None
    ) -> tuple[Tensor, ...]:
        if not isinstance(self.task, Detect):
            outputs = self.model(images, time=time, location=location)
            return (self.task.postprocess(outputs),)
        maps, size = self.model.encode(images, time=time, location=location)
        decoder: Any = self.model.decoder
        boxes, scores = decoder.candidates(maps, size)
        candidates = Candidates(boxes, scores, size)
        if self.layout == "yolo":
            return (as_yolo(candidates),)
        if decoder.oriented:
            return best_candidates(candidates)
        boxes, scores, classes, image = select(candidates, decoder.postprocess)
        if self.task.boxes == "points":
            boxes = (boxes[:, :2] + boxes[:, 2:]) / 2
        return boxes, scores, classes, image


def output_names(task: Any, layout: Layout = "plain") -> tuple[str, ...]:
    """The names of the outputs."""
    if isinstance(task, Detect):
        if layout == "yolo":
            return ("detections",)
        boxes = "points" if task.boxes == "points" else "boxes"
        return (boxes, "scores", "classes") + (() if task.boxes == "oriented" else ("image",))
    return ("probabilities" if isinstance(task, Segment | Classify) else "values",)


def as_yolo(candidates: Candidates) -> Tensor:
    """`(B, 4 + K, N)`, or `(B, 4 + K + 1, N)` of oriented boxes."""
    boxes, scores = candidates.best()
    if boxes.shape[-1] == 5:
        rows = [boxes[..., :4], scores, boxes[..., 4:]]
    else:
        low, high = boxes[..., :2], boxes[..., 2:]
        rows = [(low + high) / 2, high - low, scores]
    return torch.cat(rows, dim=-1).transpose(1, 2)
