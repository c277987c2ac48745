"""Tensors that are in a file for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from geotune.memory.offload import offloaded, tensors_outside
from helpers.memory import peak_growth, resident_bytes

MIB = 2**20


def test_values_stay_and_the_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.pt"
    base = torch.arange(12.0).view(3, 4)
    tensors = [nn.Parameter(base.T, requires_grad=False), base[1], torch.ones(2, dtype=torch.int8)]
    before = [x.detach().clone() for x in tensors]
    same = list(tensors)
    with offloaded(tensors, path):
        assert path.is_file()
        assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert not path.exists()
    assert all(x is y for x, y in zip(tensors, same, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert [x.stride() for x in tensors] == [(1, 4), (1,), (1,)]


def test_failure_inside_removes_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), offloaded([torch.ones(2)], tmp_path / "weights.pt"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_memory_is_free_inside_and_needed_once_afterwards(tmp_path: Path) -> None:
    tensors = [torch.full((16 * MIB,), 1.0) for _ in range(4)]  # 256 MiB
    before = resident_bytes()
    with offloaded(tensors, tmp_path / "weights.pt"):
        # Not all of it: what else the process takes or keeps meanwhile is not known exactly.
        assert before - resident_bytes() > 128 * MIB

    def round_trip() -> None:
        with offloaded(tensors, tmp_path / "weights.pt"):
            pass

    assert peak_growth(round_trip) < 128 * MIB  # a second copy would take 256 MiB


def test_tensors_that_a_model_shares_are_left_out() -> None:
    backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model = nn.Sequential(backbone[0])
    assert {id(x) for x in tensors_outside(backbone, model)} == {
        id(x) for x in (*backbone[1].parameters(), *backbone[1].buffers())
    }
