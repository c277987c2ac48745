"""Compute a batch in micro-batches, and in smaller ones when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from geotune.errors import GeotuneError
from geotune.memory.oom import free_memory, is_oom

Result = TypeVar("Result")


class MicroBatcher:
    """Splits batches into micro-batches.

    Args:
        size: initial number of windows per micro-batch.
        on_oom: receives the new size and the reason when memory runs out; None turns that into an
            error.
        recompute_more: called with the reason, before the size is reduced for a backward pass;
            returns whether the model now needs less memory.

    Attributes:
        size: current number of windows per micro-batch.
    """

    def __init__(
        self,
        size: int,
        on_oom: Callable[[int, str], None] | None = None,
        recompute_more: Callable[[str], bool] = lambda reason: False,
    ) -> None:
        self.size = size
        self._on_oom = on_oom
        self._recompute_more = recompute_more

    def run(
        self, windows: int, attempt: Callable[[Sequence[slice]], Result], *, backward: bool = True
    ) -> Result:
        """Call `attempt` with the micro-batches of a batch, as slices.

        When memory runs out, more activations are recomputed in the `backward` pass, or the size is
        reduced to half or less, and `attempt` is called again, so it must undo its effects before
        it raises. Raises `GeotuneError` if one window is too much.
        """
        while True:
            starts = range(0, windows, self.size)
            try:
                return attempt([slice(i, min(i + self.size, windows)) for i in starts])
            except (RuntimeError, MemoryError) as error:
                if self._on_oom is None or not is_oom(error):
                    raise
                message = str(error).partition("\n")[0]
            reason = f"memory ran out with {self.size} windows at once: {message}"
            free_memory()  # outside of `except`: the error keeps the tensors alive
            if backward and self._recompute_more(reason):
                continue
            smaller = next_smaller_divisor(self.size)
            if smaller is None:
                raise GeotuneError(
                    f"{reason}; there is no smaller micro-batch: geotune plan --budget suggests "
                    "settings that save memory",
                    code="out-of-memory",
                )
            self.size = smaller
            self._on_oom(smaller, reason)


def next_smaller_divisor(size: int) -> int | None:
    """The largest proper divisor, at most half of `size`; None for 1."""
    return max((n for n in range(1, size // 2 + 1) if size % n == 0), default=None)


class BatchNormStatistics:
    """A snapshot of the running statistics of batch norm layers in training mode."""

    def __init__(self, model: nn.Module) -> None:
        self._saved: list[tuple[Tensor, Tensor]] = [
            (buffer, buffer.clone())
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
        ]

    def restore(self) -> None:
        """Restore the statistics."""
        for buffer, saved in self._saved:
            buffer.copy_(saved)
