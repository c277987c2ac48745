"""Formulas that hold for NumPy's arrays and torch's tensors alike are written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # data is read and checked without torch, which takes seconds to import
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")
"""Floating-point numbers of either kind; what comes out is of the kind that went in."""
_Kind = TypeVar("_Kind", covariant=True)


class Functions(Protocol[_Kind]):
    """Functions of arrays of one kind, by the names that NumPy and torch share."""

    def __getattr__(self, name: str, /) -> Callable[..., _Kind]: ...


def array_namespace(array: Array) -> Functions[Array]:
    """The module, `numpy` or `torch`, whose functions take this array."""
    if isinstance(array, np.ndarray):
        return cast("Functions[Array]", np)
    import torch

    return cast("Functions[Array]", torch)
