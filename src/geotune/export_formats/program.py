"""Trace a model with `torch.export`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from geotune.errors import GeotuneError
from geotune.export_formats.exported_model import ExportedModel

LEAST_MULTIPLE = 3
"""Pixels of the coarsest map on a side of images of any size, at least: fewer give single pixels
after further down-sampling, which are other operators."""
MAX_SIDE = 1 << 16
"""Largest height and width of images of any size."""
EXAMPLE_BATCH = 2
"""Images that are traced; a batch of one would be taken as a constant."""


def trace(model: ExportedModel, window: int, *, any_size: bool = False) -> ExportedProgram:
    """The operators of a model, for batches of any number of images.

    Args:
        model: on the CPU, in evaluation mode.
        window: height and width of the images.
        any_size: allow images of any height and width that are multiples of the backbone's
            `size_divisor`, and at least `LEAST_MULTIPLE` times it; not only `window`.

    Raises `GeotuneError` if the model cannot be traced, with what stands in the way.
    """
    divisor = model.model.encoder.backbone.size_divisor
    inputs = example_inputs(
        model, max(window, (LEAST_MULTIPLE + 1) * divisor) if any_size else window
    )
    batch = Dim("batch", min=1)
    shapes: dict[str, dict[int, Any]] = {name: {0: batch} for name in inputs}
    if any_size:
        sides = inputs["images"].ndim - 2
        for side, name in enumerate(("rows", "columns"), start=sides):
            shapes["images"][side] = divisor * Dim(
                name, min=LEAST_MULTIPLE, max=MAX_SIDE // divisor
            )
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(model, (), dict(inputs), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises many kinds
        what = "of any height and width" if any_size else f"of {window} x {window} pixels"
        hint = (
            "export it for windows of one size, without --any-size"
            if any_size
            else "use geotune predict, or report it with this message"
        )
        reason = str(error).strip().splitlines()
        raise GeotuneError(
            f"{model.model.encoder.backbone.name} cannot be exported for images {what}: "
            f"torch.export says: {reason[0] if reason else type(error).__name__}; {hint}",
            code="export-unsupported",
        ) from error


def example_inputs(model: ExportedModel, window: int) -> dict[str, Tensor]:
    """Random inputs of a batch of `EXAMPLE_BATCH` windows, in raw values."""
    example = model.model.example(window)
    offset, scale = model.model.offset.cpu(), model.model.scale.cpu()
    shape = (1, -1) + (1,) * (example["images"].ndim - 2)
    example["images"] = example["images"] * scale.view(shape) + offset.view(shape)
    return {
        name: torch.cat([x] * EXAMPLE_BATCH)
        for name, x in example.items()
        if name in model.input_names
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of tracing and conversion, which say nothing about the result."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "root")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
