"""Models without contents: built in a second where drawing their initial values takes many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_empty: ContextVar[bool] = ContextVar("empty", default=False)
_SMALL = 1 << 16
_DRAWN = {torch.ops.aten.uniform_, torch.ops.aten.normal_, torch.ops.aten.erfinv_}


@contextmanager
def skip_init() -> Iterator[None]:
    """Large parameters get no initial values, and fingerprints are empty, while it is open.

    For models of which only the shapes are asked. Memory that nobody writes takes no place.
    """
    before = _empty.set(True)
    try:
        with _NothingDrawn():  # type: ignore[no-untyped-call]
            yield
    finally:
        _empty.reset(before)


def are_empty() -> bool:
    """Whether what is built now has no contents."""
    return _empty.get()


class _NothingDrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves out what would be written into a large parameter, however its code came by it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and func._schema.is_mutable and isinstance(args[0], torch.Tensor):
            first = args[0]
            written = isinstance(first, nn.Parameter) or func.overloadpacket in _DRAWN
            if written and first.numel() > _SMALL:
                return first
        return func(*args, **(kwargs or {}))
