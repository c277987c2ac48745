"""Peak memory reported by the system."""

from __future__ import annotations

import torch

from geotune.memory.measure import PeakMonitor, peak_resident_bytes, resident_bytes

MIB = 1024**2


def test_peak_monitor_measures_process_memory() -> None:
    monitor = PeakMonitor(torch.device("cpu"))
    block = bytearray(b"x") * (peak_resident_bytes() - resident_bytes() + 64 * MIB)
    peak = monitor.peak()
    assert peak.kind == "process memory"
    assert peak.reserved_bytes is None
    assert peak.peak_bytes - peak.start_bytes > 48 * MIB
    assert peak.peak_bytes >= len(block)
    del block
    assert monitor.peak().peak_bytes >= peak.peak_bytes  # the peak, not the current amount


def test_resident_bytes_are_at_most_the_peak() -> None:
    assert 10 * MIB < resident_bytes() <= peak_resident_bytes() * 1.01
