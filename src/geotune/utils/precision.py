"""Choose `train.precision: auto` by what the device computes fast.

bf16 autocast saves time only if the hardware multiplies bfloat16; otherwise it is emulated and up
to a hundred times slower than float32. GPUs are judged by their compute capability. For CPUs the
instruction set alone is not enough, because oneDNN may be limited to older instructions
(`ONEDNN_MAX_CPU_ISA`); a CPU with bf16 instructions therefore runs one small convolution in both
precisions.

torch is imported inside the functions, so that importing this file is cheap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from geotune.errors import GeotuneError

if TYPE_CHECKING:
    import torch

PredictionPrecision = Literal["32-true", "bf16-mixed"]
"""What predictions may be computed in: the precisions that every device has."""

AUTO, FULL, MIXED, HALF = "auto", "32-true", "bf16-mixed", "16-mixed"
SLOW_FACTOR = 1.5
"""Slowdown against float32 that is worth a warning; smaller factors may be noise."""
MIN_CAPABILITY = (8, 0)
"""First compute capability of NVIDIA GPUs that multiplies bfloat16."""
BF16_INSTRUCTIONS = {
    "amx_bf16": "AMX-BF16",
    "avx512_bf16": "AVX512-BF16",
    "sve_bf16": "SVE-BF16",
    "bf16": "Arm BF16",
}
"""Names of CPU instruction sets by PyTorch's capability keys, fastest first."""
MAX_ROUNDS, MAX_SECONDS = 5, 0.1
"""Limits of the timing; no round starts after `MAX_SECONDS`."""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision and the reason for it."""

    precision: str
    reason: str


def choose_precision(device: str, *, devices: int = 1, processes: int = 1) -> PrecisionChoice:
    """Resolve `auto` for a device type.

    Args:
        device: `cpu`, `cuda` or `mps`.
        devices: number of devices used on this machine.
        processes: number of training processes on all machines.
    """
    if device == "cuda":
        problem = _gpu_problem(devices)
        if problem is None:
            return PrecisionChoice(MIXED, _gpu_name(0))
        return PrecisionChoice(FULL, problem)
    if device != "cpu":
        return PrecisionChoice(FULL, f"not every {device.upper()} device computes bf16 fast")
    instructions = bf16_instructions()
    if instructions is None:
        return PrecisionChoice(FULL, "this CPU has no bf16 instructions")
    if processes > 1:  # each process would measure for itself, but all must agree
        return PrecisionChoice(FULL, "several processes train on CPUs")
    factor = bf16_factor()
    if factor > 1:
        reason = f"{instructions}, but bf16-mixed is {_slower(factor)} on this CPU"
        return PrecisionChoice(FULL, reason)
    reason = f"{instructions}, {factor:.2f}x the time of {FULL} in one small convolution"
    return PrecisionChoice(MIXED, reason)


def slow_precision_note(precision: str, device: str) -> str | None:
    """A warning if this precision is slow on the device, with the factor measured on CPUs."""
    import torch

    if device == "cuda" and precision == MIXED and torch.cuda.is_available():
        problem = _gpu_problem(1)
        return None if problem is None else f"{precision} is slow here ({problem})"
    if device == "cpu" and precision != FULL and (factor := bf16_factor()) >= SLOW_FACTOR:
        measured = "(measured on one small convolution)"
        return f"{precision} is {_slower(factor)} than {FULL} on this CPU {measured}"
    return None


def check_prediction_precision(precision: str) -> None:
    """Raise `GeotuneError` for a precision that predictions cannot be computed in."""
    if precision not in (expected := get_args(PredictionPrecision)):
        raise GeotuneError(
            f"precision: found {precision!r}, expected {' or '.join(expected)}",
            code="option-invalid",
            key="--precision",
        )


def prediction_notes(precision: str, device: str) -> list[str]:
    """A message about `--precision` if it is slow on the device."""
    slow = slow_precision_note(precision, device)
    return [] if slow is None else [f"--precision: {slow}"]


def substitution_note(precision: str, device: str) -> str | None:
    """A note if a device computes in another precision than the requested one."""
    if precision != HALF or device == "cuda":
        return None
    return f"{HALF} needs an NVIDIA GPU; this {device.upper()} computes in {MIXED} in its place"


def evaluation_precision(saved: str, device: str) -> tuple[str, str | None]:
    """The precision for evaluating a run, and a note if it differs from the training's.

    It is the saved precision of the training, except on devices where that is slow.
    """
    note = slow_precision_note(saved, device)
    if note is None:
        return saved, substitution_note(saved, device)
    return FULL, f"computed in {FULL}: the run's {note}"


def bf16_instructions() -> str | None:
    """Name of this CPU's bf16 instruction set; None without one."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return next((name for key, name in BF16_INSTRUCTIONS.items() if capabilities.get(key)), None)


@cache
def bf16_factor() -> float:
    """Time of a small convolution in bf16 autocast, relative to float32.

    Forward and backward, the minimum of several rounds, measured once per process. It counts the
    CPU time of one thread, so that other work on the machine has little effect.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        _convolution_seconds(FULL), _convolution_seconds(MIXED)  # compiles the kernels
        rounds: list[tuple[float, float]] = []
        while not rounds or (
            len(rounds) < MAX_ROUNDS and time.perf_counter() - start < MAX_SECONDS
        ):
            rounds.append((_convolution_seconds(FULL), _convolution_seconds(MIXED)))
    finally:
        torch.set_num_threads(threads)
    return min(mixed for _, mixed in rounds) / min(full for full, _ in rounds)


def _convolution_seconds(precision: str) -> float:
    """CPU time of a 3x3 convolution, forward and backward."""
    import torch
    from torch.nn.functional import conv2d

    images = torch.full((2, 64, 16, 16), 0.5, requires_grad=True)
    weight = torch.full((64, 64, 3, 3), 0.1, requires_grad=True)
    with torch.enable_grad():
        start = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != FULL):
            maps = conv2d(images, weight, padding=1)
        maps.sum().backward()  # type: ignore[no-untyped-call]
        return time.thread_time() - start


def _slower(factor: float) -> str:
    return f"{factor:.0f}x slower" if factor >= 10 else f"{factor:.1f}x slower"


def _gpu_name(index: int) -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}"


def _gpu_problem(devices: int) -> str | None:
    """Why the GPUs do not compute bf16 fast; None if they do."""
    import torch

    if not torch.cuda.is_available():
        return f"this machine has no GPU; from compute capability 8.0 on it would be {MIXED}"
    for index in range(min(devices, torch.cuda.device_count())):
        if torch.cuda.get_device_capability(index) < MIN_CAPABILITY:
            return f"{_gpu_name(index)}: bf16 is fast from 8.0 on"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{_gpu_name(0)}: this PyTorch build does not support bf16 on it"
    return None


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision, which must be resolved.

    float16 is used for `16-mixed` on CUDA only; other devices use bfloat16 in its place.
    """
    import torch

    if precision == AUTO:
        raise ValueError("train.precision auto is not resolved")
    half = precision == HALF and device.type == "cuda"
    dtype = torch.float16 if half else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != FULL)
