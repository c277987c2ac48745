"""What `train.precision: auto` chooses on simulated machines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geotune.utils import precision
from geotune.utils.precision import (
    FULL,
    MIXED,
    choose_precision,
    evaluation_precision,
    slow_precision_note,
    substitution_note,
)

SOURCE = Path(__file__).parents[2] / "src"


def cpu(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], factor: float | None
) -> None:
    """Simulate a CPU; without a factor nothing may be timed."""

    def measured() -> float:
        assert factor is not None, "timed unnecessarily"
        return factor

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    monkeypatch.setattr(precision, "bf16_factor", measured)


def gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], bf16: bool) -> None:
    """Simulate GPUs."""
    cuda: dict[str, Any] = {
        "is_available": lambda: bool(capabilities),
        "device_count": lambda: len(capabilities),
        "get_device_capability": lambda index: capabilities[index],
        "get_device_name": lambda index: f"GPU {index}",
        "is_bf16_supported": lambda including_emulation: bf16,
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.mark.parametrize(
    ("instructions", "factor", "expected", "reason"),
    [
        ({}, None, FULL, "no bf16 instructions"),
        ({"avx2": True, "avx512_bf16": False}, None, FULL, "no bf16 instructions"),
        ({"avx512_bf16": True}, 0.7, MIXED, "AVX512-BF16, 0.70x the time of 32-true"),
        ({"avx512_bf16": True, "amx_bf16": True}, 0.2, MIXED, "AMX-BF16"),
        ({"bf16": True}, 1.0, MIXED, "Arm BF16"),
        ({"avx512_bf16": True}, 1.1, FULL, "AVX512-BF16, but bf16-mixed is 1.1x slower"),
        ({"avx512_bf16": True}, 146.2, FULL, "bf16-mixed is 146x slower on this CPU"),
    ],
)
def test_cpus(
    monkeypatch: pytest.MonkeyPatch,
    instructions: dict[str, bool],
    factor: float | None,
    expected: str,
    reason: str,
) -> None:
    cpu(monkeypatch, instructions, factor)
    choice = choose_precision("cpu")
    assert choice.precision == expected and reason in choice.reason


def test_several_processes_on_cpus_agree_without_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, {"avx512_bf16": True}, None)
    assert choose_precision("cpu", processes=2).precision == FULL


@pytest.mark.parametrize(
    ("capabilities", "bf16", "devices", "expected"),
    [
        ([(8, 0)], True, 1, MIXED),
        ([(9, 0), (12, 0)], True, 2, MIXED),
        ([(7, 5)], True, 1, FULL),  # some PyTorch says that it is supported, and emulates it
        ([(8, 6), (7, 0)], True, 2, FULL),
        ([(8, 6), (7, 0)], True, 1, MIXED),
        ([(8, 6)], True, 4, MIXED),  # Lightning says that there are fewer
        ([(8, 0)], False, 1, FULL),
        ([], False, 1, FULL),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: list[tuple[int, int]],
    bf16: bool,
    devices: int,
    expected: str,
) -> None:
    gpus(monkeypatch, *capabilities, bf16=bf16)
    assert choose_precision("cuda", devices=devices, processes=devices).precision == expected


def test_mps_computes_in_float32() -> None:
    assert choose_precision("mps").precision == FULL


def test_float16_that_a_device_replaces_by_bfloat16_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu(monkeypatch, {}, 1.0)
    for device in ("cpu", "mps"):
        assert "bf16-mixed in its place" in str(substitution_note("16-mixed", device))
        assert evaluation_precision("16-mixed", device) == (
            "16-mixed",
            substitution_note("16-mixed", device),
        )
    assert substitution_note("16-mixed", "cuda") is None
    assert substitution_note(MIXED, "cpu") is None and substitution_note(FULL, "cpu") is None


def test_slow_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, {}, 146.2)
    slow = "bf16-mixed is 146x slower than 32-true on this CPU (measured on one small convolution)"
    assert slow_precision_note(MIXED, "cpu") == slow
    assert evaluation_precision(MIXED, "cpu") == (FULL, f"computed in 32-true: the run's {slow}")
    assert slow_precision_note(FULL, "cpu") is None and evaluation_precision(FULL, "cpu") == (
        FULL,
        None,
    )
    cpu(monkeypatch, {}, 1.2)  # may be noise
    assert slow_precision_note(MIXED, "cpu") is None and evaluation_precision(MIXED, "cpu") == (
        MIXED,
        None,
    )
    gpus(monkeypatch, (7, 5), bf16=True)
    assert "compute capability 7.5" in str(slow_precision_note(MIXED, "cuda"))
    assert slow_precision_note("16-mixed", "cuda") is None
    gpus(monkeypatch, bf16=False)  # a plan for a GPU that is not here
    assert slow_precision_note(MIXED, "cuda") is None


def test_timing_changes_nothing_and_happens_once() -> None:
    precision.bf16_factor.cache_clear()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        factor = precision.bf16_factor()
    assert factor > 0 and precision.bf16_factor() == factor
    assert precision.bf16_factor.cache_info().misses == 1
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="limits x86 only")
def test_a_limited_onednn_is_detected() -> None:
    """The instructions are there, or not, but are not used."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from geotune.utils.precision import choose_precision as c; print(c('cpu').precision)",
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == FULL
