"""Build models without initialising large parameters, when only shapes are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_skipping: ContextVar[bool] = ContextVar("skipping", default=False)
_SMALL_NUMEL = 1 << 16
_RANDOM_OPS = {torch.ops.aten.uniform_, torch.ops.aten.normal_, torch.ops.aten.erfinv_}


@contextmanager
def skip_init() -> Iterator[None]:
    """Context in which large parameters stay uninitialised and fingerprints are empty.

    Unwritten memory is never committed by the operating system, so it costs nothing.
    """
    before = _skipping.set(True)
    try:
        with _SkipLargeWrites():  # type: ignore[no-untyped-call]
            yield
    finally:
        _skipping.reset(before)


def init_is_skipped() -> bool:
    """Whether `skip_init` is active."""
    return _skipping.get()


class _SkipLargeWrites(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Skip in-place operations on large parameters, and random ones on any large tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and func._schema.is_mutable and isinstance(args[0], torch.Tensor):
            target = args[0]
            initialises = isinstance(target, nn.Parameter) or func.overloadpacket in _RANDOM_OPS
            if initialises and target.numel() > _SMALL_NUMEL:
                return target
        return func(*args, **(kwargs or {}))
