"""The estimated peak equals that of the real step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.memory.estimate import (
    CUDA_CONTEXT_BYTES,
    DataDependentModelError,
    StepSpec,
    estimate_peak,
)
from geotune.memory.tracker import MemoryTracker, TrackedPeak


class Small(nn.Module):
    """A frozen convolution, batch norm, a head, and a parameter without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 1)
        )
        self.body[0].requires_grad_(False)
        self.head = nn.Conv2d(32, 2, 1)
        self.unused = nn.Parameter(torch.zeros(100_000))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images))
        return out


class DataDependent(Small):
    """Reads tensor values in `forward`."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * float(images.amax()))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=False)


def step_spec(**options: object) -> StepSpec:
    inputs = {"images": torch.empty(4, 3, 24, 24, device="meta")}
    targets = torch.empty(4, 24, 24, dtype=torch.long, device="meta")
    return StepSpec(inputs, targets, lambda _: F.cross_entropy, adamw, **options)  # type: ignore[arg-type]


def real_peak(model: nn.Module, *, bf16: bool, accumulate: int, clip: float) -> TrackedPeak:
    optimizer = adamw(model)
    images, targets = torch.randn(4, 3, 24, 24), torch.zeros(4, 24, 24, dtype=torch.long)
    for _ in range(2):
        with MemoryTracker(model, optimizer, (images, targets)) as tracker:
            chunks = zip(images.chunk(accumulate), targets.chunk(accumulate), strict=True)
            for images_i, targets_i in chunks:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = F.cross_entropy(model(images_i), targets_i)
                (loss / accumulate).backward()
                del loss
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return tracker.peak


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.0), (1, 1.0), (4, 1.0)])
def test_estimate_equals_the_real_peak(precision: str, accumulate: int, clip: float) -> None:
    model = Small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    estimate = estimate_peak(
        model, step_spec(precision=precision, micro_batch=4 // accumulate, grad_clip_norm=clip)
    ).cpu
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    expected = real_peak(model, bf16=precision != "32-true", accumulate=accumulate, clip=clip)
    assert estimate.total == pytest.approx(expected.total, rel=1e-3)
    assert (estimate.frozen, estimate.trained) == (expected.frozen, expected.trained)


def test_real_model_is_tracked_by_scope() -> None:
    model = Small()
    estimate = estimate_peak(model, step_spec(), {"body": [model.body], "head": [model.head]}).cpu
    assert estimate.by_scope["body"]["saved"] > estimate.by_scope.get("head", {}).get("saved", 0)
    assert estimate.by_scope["body"]["frozen"] > 0


def test_foreach_optimizer_needs_one_more_copy_on_a_gpu() -> None:
    model = nn.Sequential(*(nn.Linear(300, 300) for _ in range(12)))
    inputs = {"input": torch.empty(1, 300, device="meta")}
    step = StepSpec(
        inputs, torch.empty(1, dtype=torch.long, device="meta"), lambda _: F.cross_entropy, adamw
    )
    estimate = estimate_peak(model, step)
    assert estimate.cpu.total < 4.5 * estimate.cpu.trained  # weights, gradients, two of the state
    assert estimate.gpu.total >= 5 * estimate.gpu.trained  # and one more in between
    assert (
        estimate.total_gpu_bytes
        == estimate.gpu.total + round(0.1 * estimate.gpu.total) + CUDA_CONTEXT_BYTES
    )


def test_flops_include_recomputation_and_all_micro_batches() -> None:
    model, again = Small(), Small()
    from geotune.utils.activation_checkpointing import recompute

    recompute(again.body)
    flops = estimate_peak(model, step_spec()).flops
    assert flops > 0
    assert estimate_peak(again, step_spec()).flops > flops
    assert estimate_peak(model, step_spec(micro_batch=1)).flops == flops


def test_data_dependent_model_needs_compute() -> None:
    with pytest.raises(DataDependentModelError):
        estimate_peak(DataDependent(), step_spec())
    estimate = estimate_peak(DataDependent(), step_spec(), compute=True)
    assert estimate.computed
    assert estimate.cpu.total == pytest.approx(
        estimate_peak(Small(), step_spec()).cpu.total, rel=0.05
    )
