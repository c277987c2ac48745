"""Move tensors that are not used for a while from memory to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


@contextmanager
def offloaded(tensors: Sequence[Tensor], path: Path) -> Iterator[None]:
    """Inside the context, tensors on the CPU are mapped from a file, which is removed afterwards.

    They can be used as before, but take no memory until they are read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save([x.data for x in tensors], path)
        _load(tensors, path, mmap=True)
        yield
        _load(tensors, path, mmap=False)
    finally:
        path.unlink(missing_ok=True)


def _load(tensors: Sequence[Tensor], path: Path, *, mmap: bool) -> None:
    for x, content in zip(tensors, torch.load(path, mmap=mmap, weights_only=True), strict=True):
        x.data = content


def tensors_outside(module: nn.Module, model: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a module that are not those of a model."""
    inside = {id(x) for x in (*model.parameters(), *model.buffers())}
    return [x for x in (*module.parameters(), *module.buffers()) if id(x) not in inside]
