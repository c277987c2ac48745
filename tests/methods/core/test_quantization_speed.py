"""Frozen weights in fewer bits are timed, and little slower, on this CPU."""

from __future__ import annotations

import pytest
import torch

from geotune.config.method_options import Precision
from geotune.methods.core.quantization_speed import frozen_factor


@pytest.mark.parametrize("frozen", ["bf16", "int8"])
def test_timing_changes_nothing_and_happens_once(frozen: Precision) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    cpu = torch.device("cpu")
    with torch.no_grad():
        factor = frozen_factor(frozen, "32-true", cpu)
    assert 0.2 < factor < 10 and frozen_factor(frozen, "32-true", cpu) == factor
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
