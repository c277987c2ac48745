"""Measure peak memory: of the GPU if there is one, else of the process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MeasuredPeak:
    """A measured peak; the entry `peak_memory` of `run.json`.

    Attributes:
        kind: `GPU memory` or `process memory`.
        peak_bytes: on a GPU the allocated tensors, on a CPU the resident set.
        start_bytes: the amount when the measurement started.
        reserved_bytes: on a GPU, the peak of the allocator's reserved memory.
        tracked_bytes: on a CPU, the peak of the tensors of one training step.
        predicted_bytes: the estimated peak of a step's tensors; None if there is no estimate.
    """

    kind: str
    peak_bytes: int
    start_bytes: int
    reserved_bytes: int | None = None
    tracked_bytes: int | None = None
    predicted_bytes: int | None = None


class PeakMonitor:
    """Measures peak memory from its creation on.

    The peak resident set of a process cannot be reset. On a CPU, an earlier peak (while data was
    loaded, say) therefore hides lower later ones.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            self._start = resident_bytes()

    def peak(self) -> MeasuredPeak:
        """The peak so far."""
        if self.device.type == "cuda":
            return MeasuredPeak(
                "GPU memory",
                torch.cuda.max_memory_allocated(self.device),
                self._start,
                torch.cuda.max_memory_reserved(self.device),
            )
        return MeasuredPeak("process memory", peak_resident_bytes(), self._start)


def peak_resident_bytes() -> int:
    """The peak resident set of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """The current resident set of this process; its peak if the system does not report it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_resident_bytes()
