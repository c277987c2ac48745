"""Memory by module scope, computed by hand: forward, backward and recomputed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geotune.memory.tracker import CATEGORIES, MemoryTracker, TrackedPeak

FLOAT = 4
BATCH, WIDTH = 32, 8
MAP = BATCH * WIDTH * FLOAT
WEIGHT = WIDTH * WIDTH * FLOAT


class Two(nn.Module):
    """A trunk with an inserted module, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(Square(), nn.Linear(WIDTH, WIDTH, bias=False))
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.trunk(x))
        return out


class Square(nn.Module):
    """x times x, which saves x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


def scopes(model: Two) -> dict[str, list[nn.Module]]:
    return {"trunk": [model.trunk], "inserted": [model.trunk[0]], "head": [model.head]}


def peak_of_a_step(model: Two, x: Tensor) -> TrackedPeak:
    with MemoryTracker(model, others=x, scopes=scopes(model)) as tracker:
        model(x).sum().backward()
    return tracker.peak


def test_saved_tensors_belong_to_the_scope_that_created_them() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    with MemoryTracker(model, others=x, scopes=scopes(model)) as tracker:
        y = model(x)
        y.sum().backward()
        torch.zeros(100 * MAP)  # the peak: saved tensors are freed except y
    assert tracker.peak.by_scope["loss"]["transient"] == 100 * MAP * FLOAT
    peak = peak_of_a_step(model, x)
    # the peak is in the backward pass of the trunk's layer; the head's layer has its gradient
    assert peak.by_scope["inserted"] == {"saved": MAP}  # the input of the trunk's layer
    assert peak.by_scope["trunk"]["trained"] == peak.by_scope["head"]["trained"] == WEIGHT
    assert peak.by_scope["loss"]["saved"] >= MAP  # the batch
    assert peak.by_scope["head"]["gradients"] == WEIGHT


def test_categories_and_scopes_sum_to_the_total() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        with MemoryTracker(model, optimizer, x, scopes(model)) as tracker:
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    peak = tracker.peak
    assert sum(peak.by_category.values()) == peak.total
    assert tuple(peak.by_category) == CATEGORIES
    assert sum(n for sizes in peak.by_scope.values() for n in sizes.values()) == peak.total
    states = [peak.by_scope[scope]["optimizer_state"] for scope in ("trunk", "head")]
    assert states == [2 * WEIGHT + FLOAT] * 2
    named = ("trunk", "inserted", "head", "loss", "optimizer")
    assert list(peak.by_scope) == [scope for scope in named if scope in peak.by_scope]


def test_without_a_backward_pass_nothing_is_saved() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    with torch.no_grad(), MemoryTracker(model, scopes=scopes(model)) as tracker:
        model(x)
    assert tracker.peak.saved == 0 and tracker.peak.transient == tracker.peak.activations > 0


def test_backward_pass_is_tracked_by_scope() -> None:
    """The largest tensor exists only in the trunk's backward pass."""

    class Wide(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return gradients[0] + torch.zeros(1000 * MAP).sum()

    class Trunk(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Wide.apply(x)
            return out

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Trunk(), nn.Linear(WIDTH, WIDTH))
    named = {"first": [model[0]], "trunk": [model[1]], "last": [model[2]]}
    with MemoryTracker(model, scopes=named) as tracker:
        model(torch.randn(BATCH, WIDTH)).sum().backward()
    assert tracker.peak.by_scope["trunk"]["transient"] >= 1000 * MAP * FLOAT


def test_recomputed_tensors_belong_to_their_module() -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, 100 * WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            def code(y: Tensor) -> Tensor:
                return F.gelu(self.inner(y)).mean(1, keepdim=True)

            out: Tensor = checkpoint(code, x, use_reentrant=False)
            return out

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Recomputed(), nn.Linear(1, 1))
    named = {"first": [model[0]], "recomputed": [model[1]], "last": [model[2]]}
    with MemoryTracker(model, scopes=named) as tracker:
        model(torch.randn(BATCH, WIDTH)).sum().backward()
    assert tracker.peak.by_scope["recomputed"]["transient"] >= 2 * 100 * MAP
    assert not any(model[1].inner._forward_hooks)  # hooks are removed
