"""Values as JSON can express them."""

from __future__ import annotations

import math
from typing import Any


def nan_to_none(values: Any) -> Any:
    """Replace NaN and infinity by None, for JSON."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, dict):
        return {key: nan_to_none(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [nan_to_none(value) for value in values]
    return values
