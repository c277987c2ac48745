"""Archives of `torch.export` on a disk that is full."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch

from geotune.export_formats.pt2_file import read_pt2, write_pt2


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_full_disk_is_an_error_and_does_not_end_the_process(tmp_path: Path) -> None:
    example = torch.zeros(1, 100)
    program = torch.export.export(torch.nn.Linear(100, 100), (example,))
    write_pt2(program, tmp_path / "whole.pt2", {"a": 1})
    module, description = read_pt2(tmp_path / "whole.pt2")
    assert description == {"a": 1} and module(example).shape == (1, 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_pt2(program, tmp_path / "cut.pt2", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
