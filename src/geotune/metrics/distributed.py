"""Gather metric state across distributed processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import distributed

Item = TypeVar("Item")


def all_gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, ordered by rank; without distributed training, `items` itself.

    A collective: every process must call it.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    gathered: list[list[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, list(items))
    return [item for of_rank in gathered for item in of_rank]
