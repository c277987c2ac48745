"""A batch computed in parts, and in smaller ones where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from geotune.errors import GeotuneError
from geotune.memory.oom import free_memory, is_oom

Result = TypeVar("Result")


class MicroBatcher:
    """How many windows are computed at once.

    Args:
        micro: that many at first.
        fewer: told how many it is from now on, and what was said when memory ran out; None where
            memory that runs out is an error.

    Attributes:
        micro: that many now.
    """

    def __init__(self, size: int, on_oom: Callable[[int, str], None] | None = None) -> None:
        self.size = size
        self._on_oom = on_oom

    def run(self, windows: int, attempt: Callable[[Sequence[slice]], Result]) -> Result:
        """What `attempt` makes of a batch of `windows`, given its parts.

        Where memory runs out it is called again, with parts of half the size or less; so it has to
        undo what it did before it fails. Raises `GeotuneError` where one window is too much.
        """
        while True:
            starts = range(0, windows, self.size)
            try:
                return attempt([slice(i, min(i + self.size, windows)) for i in starts])
            except (RuntimeError, MemoryError) as error:
                if self._on_oom is None or not is_oom(error):
                    raise
                said = str(error).partition("\n")[0]
            why = f"memory ran out with {self.size} windows at once: {said}"
            smaller = next_smaller_divisor(self.size)
            if smaller is None:
                raise GeotuneError(
                    f"{why}; and there is no smaller micro-batch: geotune plan --budget says what "
                    "else saves memory"
                )
            free_memory()  # not before: the error holds on to all that was there
            self.size = smaller
            self._on_oom(smaller, why)


def next_smaller_divisor(micro: int) -> int | None:
    """The next smaller one that divides it, at most half of it; None below one."""
    return max((n for n in range(1, micro // 2 + 1) if micro % n == 0), default=None)


class BatchNormStatistics:
    """What a pass forward in training mode moves: batch norm's statistics, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = [
            (buffer, buffer.clone())
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
        ]

    def restore(self) -> None:
        """Put them back."""
        for buffer, kept in self._kept:
            buffer.copy_(kept)
