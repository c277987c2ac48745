"""Refuse to build a model that an adapter's tensors cannot fill.

`adapter.json` of a stranger may ask for a billion prompts; without a limit, the process would be
killed before the tensors are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FACTORIES: tuple[Any, ...] = (
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye),
    *(Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full),
)


class AllocationLimitError(Exception):
    """More numbers were asked for than the limit allows."""


class AllocationLimit(TorchFunctionMode):
    """Raises `AllocationLimitError`, before allocating, for more than `numbers` new numbers.

    Counts what PyTorch's functions for new tensors give, by which modules make their parameters.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count, then call the function."""
        if func in FACTORIES:
            self.left -= math.prod(_size(args, kwargs or {}))
            if self.left < 0:
                raise AllocationLimitError
        return func(*args, **(kwargs or {}))


def _size(args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[int]:
    """The shape that a function for new tensors is asked for."""
    given = [kwargs["size"]] if "size" in kwargs else [x for x in args if not isinstance(x, Tensor)]
    if given and isinstance(given[0], Sequence):
        return given[0]
    return [size for size in given if isinstance(size, int)]
