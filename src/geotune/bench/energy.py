"""Measure energy with the counters of the CPU packages (RAPL) and of all GPUs (NVML).

They count the whole machine, including other processes. Nothing is estimated without counters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Measures the energy since its creation."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._counters = [*_cpu_counters(powercap), *_gpu_counters()]
        self._start = [read() for read, _ in self._counters]

    def joules(self) -> float | None:
        """Energy used so far; None if no counter can be read."""
        if not self._counters:
            return None
        total = 0.0
        for (read, range_), start in zip(self._counters, self._start, strict=True):
            now = read()
            if start is None or now is None:
                return None
            total += now - start if now >= start or range_ is None else now - start + range_
        return total


Counter = tuple[Callable[[], float | None], float | None]
"""A function that reads joules (None if it fails), and the value at which the counter wraps."""


def _cpu_counters(powercap: Path) -> list[Counter]:
    counters: list[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:  # a subzone, included in its package
            continue
        read = _reader(zone / "energy_uj")
        if read() is not None:
            counters.append((read, _reader(zone / "max_energy_range_uj")()))
    return counters


def _reader(path: Path) -> Callable[[], float | None]:
    def read() -> float | None:
        try:
            return int(path.read_text(encoding="ascii")) / 1e6
        except (OSError, ValueError):  # usually readable by root only
            return None

    return read


def _gpu_counters() -> list[Counter]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []

    def reader(handle: object) -> Callable[[], float | None]:
        def read() -> float | None:
            try:
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except pynvml.NVMLError:
                return None

        return read

    return [(reader(handle), None) for handle in handles]
