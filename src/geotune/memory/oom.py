"""Telling that memory ran out, and letting go of it."""

from __future__ import annotations

import gc

import torch

_WORDS = ("not enough memory", "can't allocate memory", "out of memory", "DefaultCPUAllocator")


def is_oom(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: on a GPU, or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def free_memory() -> None:
    """Give back what nobody refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
