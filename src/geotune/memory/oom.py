"""Detect out-of-memory errors, and free cached memory."""

from __future__ import annotations

import gc

import torch

_MESSAGES = ("not enough memory", "can't allocate memory", "out of memory", "DefaultCPUAllocator")


def is_oom(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def free_memory() -> None:
    """Collect garbage and empty the CUDA cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
