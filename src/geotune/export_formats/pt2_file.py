"""A `torch.export` archive: PyTorch alone runs it, without geotune."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from geotune.errors import GeotuneError

METADATA = "geotune.json"
"""Name of the description inside the archive."""


def write_pt2(program: ExportedProgram, path: Path, description: dict[str, Any]) -> None:
    """Write a traced model and its description."""
    buffer = io.BytesIO()  # torch ends the process if the disk is full
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(description)})
    path.write_bytes(buffer.getbuffer())


def read_pt2(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The module of an archive and its description."""
    extra = {METADATA: ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=extra)
    return program.module(), json.loads(extra[METADATA])


class Pt2Model:
    """An archive, on the CPU."""

    def __init__(self, path: Path) -> None:
        self.module, _ = read_pt2(path)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        """The outputs, in order. Raises `GeotuneError` for a size that the module refuses."""
        try:
            with torch.no_grad():
                outputs = self.module(**{name: torch.from_numpy(x) for name, x in inputs.items()})
        except AssertionError as error:  # a guard of the tracing
            height, width = inputs["images"].shape[-2:]
            raise GeotuneError(
                f"--to pt2: the traced model refuses images of {height} x {width} pixels: {error}; "
                "use --to onnx, or export it for one size, without --any-size",
                code="export-unsupported",
            ) from error
        return [x.numpy() for x in outputs]
