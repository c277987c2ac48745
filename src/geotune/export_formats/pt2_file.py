"""A `torch.export` archive: PyTorch alone runs it, without geotune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

METADATA = "geotune.json"
"""Name of the description inside the archive."""


def write_pt2(program: ExportedProgram, path: Path, description: dict[str, Any]) -> None:
    """Write a traced model and its description."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(description)})


def read_pt2(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The module of an archive and its description."""
    extra = {METADATA: ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=extra)
    return program.module(), json.loads(extra[METADATA])
