"""A predicted peak is that of the real step, whatever the step is made of."""

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
    """A frozen convolution, batch norm, a head, and a parameter that no gradient reaches."""

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


class Looking(Small):
    """Looks at values."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * float(images.amax()))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=False)


def step_of(**options: object) -> StepSpec:
    inputs = {"images": torch.empty(4, 3, 24, 24, device="meta")}
    targets = torch.empty(4, 24, 24, dtype=torch.long, device="meta")
    return StepSpec(inputs, targets, F.cross_entropy, adamw, **options)  # type: ignore[arg-type]


def real_peak(model: nn.Module, *, bf16: bool, accumulate: int, clip: float) -> TrackedPeak:
    optimizer = adamw(model)
    images, targets = torch.randn(4, 3, 24, 24), torch.zeros(4, 24, 24, dtype=torch.long)
    for _ in range(2):
        with MemoryTracker(model, optimizer, (images, targets)) as tracker:
            chunks = zip(images.chunk(accumulate), targets.chunk(accumulate), strict=True)
            for part, truth in chunks:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = F.cross_entropy(model(part), truth)
                (loss / accumulate).backward()
                del loss
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return tracker.peak


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.0), (1, 1.0), (4, 1.0)])
def test_the_prediction_is_the_real_peak(precision: str, accumulate: int, clip: float) -> None:
    model = Small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    found = estimate_peak(
        model, step_of(precision=precision, micro=4 // accumulate, grad_clip_norm=clip)
    ).cpu
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    expected = real_peak(model, bf16=precision != "32-true", accumulate=accumulate, clip=clip)
    assert found.total == pytest.approx(expected.total, rel=1e-3)
    assert (found.frozen, found.trained) == (expected.frozen, expected.trained)


def test_parts_are_told_by_place_on_a_real_model_too() -> None:
    model = Small()
    found = estimate_peak(model, step_of(), {"body": [model.body], "head": [model.head]}).cpu
    assert found.by_scope["body"]["saved"] > found.by_scope.get("head", {}).get("saved", 0)
    assert found.by_scope["body"]["frozen"] > 0


def test_an_optimizer_that_takes_all_at_once_needs_more_on_a_gpu() -> None:
    model = nn.Sequential(*(nn.Linear(300, 300) for _ in range(12)))
    inputs = {"input": torch.empty(1, 300, device="meta")}
    step = StepSpec(inputs, torch.empty(1, dtype=torch.long, device="meta"), F.cross_entropy, adamw)
    found = estimate_peak(model, step)
    assert found.cpu.total < 4.5 * found.cpu.trained  # weights, gradients, two of the state
    assert found.gpu.total >= 5 * found.gpu.trained  # and one more in between
    assert (
        found.total_gpu_bytes == found.gpu.total + round(0.1 * found.gpu.total) + CUDA_CONTEXT_BYTES
    )


def test_operations_count_what_is_computed_again_and_every_part() -> None:
    model, again = Small(), Small()
    from geotune.utils.activation_checkpointing import recompute

    recompute(again.body)
    flops = estimate_peak(model, step_of()).flops
    assert flops > 0
    assert estimate_peak(again, step_of()).flops > flops
    assert estimate_peak(model, step_of(micro=1)).flops == flops


def test_a_model_that_looks_at_values_is_computed_where_that_is_asked() -> None:
    with pytest.raises(DataDependentModelError):
        estimate_peak(Looking(), step_of())
    found = estimate_peak(Looking(), step_of(), compute=True)
    assert found.computed
    assert found.cpu.total == pytest.approx(estimate_peak(Small(), step_of()).cpu.total, rel=0.05)
