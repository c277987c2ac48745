"""What several processes have counted, together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import distributed

Item = TypeVar("Item")


def all_gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in the order of their ranks; one's own where there is one only.

    Every process has to call it.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    parts: list[list[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]
