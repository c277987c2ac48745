"""Energy that a stretch of work took, where the machine counts it; nothing is guessed.

The counters are the machine's: of the processor's package (RAPL) and of all its GPUs (NVML). What
else runs there counts, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyWatch:
    """Watches from its making on."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._counters = [*_packages(powercap), *_gpus()]
        self._start = [read() for read, _ in self._counters]

    def joules(self) -> float | None:
        """What was taken since; None where nothing can be read."""
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
"""What reads joules, None where that fails, and after how many it starts again from 0."""


def _packages(powercap: Path) -> list[Counter]:
    found: list[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:  # a part of a package, which counts it
            continue
        read = _reader(zone / "energy_uj")
        if read() is not None:
            found.append((read, _reader(zone / "max_energy_range_uj")()))
    return found


def _reader(path: Path) -> Callable[[], float | None]:
    def read() -> float | None:
        try:
            return int(path.read_text(encoding="ascii")) / 1e6
        except (OSError, ValueError):  # only root may read it, as a rule
            return None

    return read


def _gpus() -> list[Counter]:
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
