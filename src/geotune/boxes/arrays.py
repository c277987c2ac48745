"""Formulas that hold for NumPy's arrays and torch's tensors alike are written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # data is read and checked without torch, which takes seconds to import
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")
"""Floating-point numbers of either kind; what comes out is of the kind that went in."""


def functions_for(array: Any) -> Any:
    """The module, `numpy` or `torch`, whose functions take this array."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch
