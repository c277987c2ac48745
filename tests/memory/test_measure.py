"""Peak memory as the system reports it."""

from __future__ import annotations

import torch

from geotune.memory.measure import PeakMonitor, peak_resident_bytes, resident_bytes

MIB = 1024**2


def test_process_memory() -> None:
    watch = PeakMonitor(torch.device("cpu"))
    block = bytearray(b"x") * (peak_resident_bytes() - resident_bytes() + 64 * MIB)
    peak = watch.peak()
    assert peak.kind == "process memory"
    assert peak.reserved_bytes is None
    assert peak.peak_bytes - peak.start_bytes > 48 * MIB
    assert peak.peak_bytes >= len(block)
    del block
    assert watch.peak().peak_bytes >= peak.peak_bytes  # the highest, not what is held now


def test_resident_is_at_most_the_highest() -> None:
    assert 10 * MIB < resident_bytes() <= peak_resident_bytes() * 1.01
