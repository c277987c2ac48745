"""Peak memory as it was observed: of the GPU where there is one, else of the process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MeasuredPeak:
    """What was observed.

    Attributes:
        kind: `GPU memory` or `process memory`.
        peak_bytes: the highest amount; on a GPU what tensors took, on a CPU the resident set.
        start_bytes: the amount when watching began.
        reserved_bytes: on a GPU, what the allocator held at the highest.
        tracked_bytes: on a CPU, the tensors of one training step at the highest.
        predicted_bytes: what was predicted of a step's tensors; None where that cannot be done.
    """

    kind: str
    peak_bytes: int
    start_bytes: int
    reserved_bytes: int | None = None
    tracked_bytes: int | None = None
    predicted_bytes: int | None = None


class PeakMonitor:
    """Watches from its making on.

    A process's highest resident set cannot be reset, so on a CPU a peak from before the watch
    (loading data, say) hides lower ones after it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            self._start = resident_bytes()

    def peak(self) -> MeasuredPeak:
        """What was observed until now."""
        if self.device.type == "cuda":
            return MeasuredPeak(
                "GPU memory",
                torch.cuda.max_memory_allocated(self.device),
                self._start,
                torch.cuda.max_memory_reserved(self.device),
            )
        return MeasuredPeak("process memory", peak_resident_bytes(), self._start)


def peak_resident_bytes() -> int:
    """The highest resident set of this process so far."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def resident_bytes() -> int:
    """The resident set of this process now; the highest so far where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_resident_bytes()
