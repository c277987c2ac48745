"""Write formulas once for NumPy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # `geotune check` works without importing torch, which takes seconds
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")
"""Floating-point arrays of either library; functions return the type that they were given."""
_Kind = TypeVar("_Kind", covariant=True)


class ArrayNamespace(Protocol[_Kind]):
    """Array functions that NumPy and torch provide under the same name."""

    def __getattr__(self, name: str, /) -> Callable[..., _Kind]: ...


def array_namespace(array: Array) -> ArrayNamespace[Array]:
    """`numpy` or `torch`, depending on the type of the array."""
    if isinstance(array, np.ndarray):
        return cast("ArrayNamespace[Array]", np)
    import torch

    return cast("ArrayNamespace[Array]", torch)
