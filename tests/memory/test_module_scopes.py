"""Where memory belongs: by hand on two layers, forward, back, and computed again."""

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
    """A trunk with something put into it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(Square(), nn.Linear(WIDTH, WIDTH, bias=False))
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.trunk(x))
        return out


class Square(nn.Module):
    """x times x: it saves x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


def places(model: Two) -> dict[str, list[nn.Module]]:
    return {"trunk": [model.trunk], "inserted": [model.trunk[0]], "head": [model.head]}


def peak_of_a_step(model: Two, x: Tensor) -> TrackedPeak:
    with MemoryTracker(model, others=x, scopes=places(model)) as tracker:
        model(x).sum().backward()
    return tracker.peak


def test_what_is_saved_belongs_to_where_it_was_made() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    with MemoryTracker(model, others=x, scopes=places(model)) as tracker:
        y = model(x)
        y.sum().backward()
        torch.zeros(100 * MAP)  # the peak is here: what was saved is gone, but for y
    assert tracker.peak.by_scope["loss"]["transient"] == 100 * MAP * FLOAT
    peak = peak_of_a_step(model, x)
    # the peak is in the backward pass of the trunk's layer, when the head's has its gradient
    assert peak.by_scope["inserted"] == {"saved": MAP}  # what the trunk's layer was given
    assert peak.by_scope["trunk"]["trained"] == peak.by_scope["head"]["trained"] == WEIGHT
    assert peak.by_scope["loss"]["saved"] >= MAP  # the batch
    assert peak.by_scope["head"]["gradients"] == WEIGHT


def test_parts_and_places_sum_to_the_total() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        with MemoryTracker(model, optimizer, x, places(model)) as tracker:
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    peak = tracker.peak
    assert sum(peak.by_category.values()) == peak.total
    assert tuple(peak.by_category) == CATEGORIES
    assert sum(n for parts in peak.by_scope.values() for n in parts.values()) == peak.total
    states = [peak.by_scope[place]["optimizer_state"] for place in ("trunk", "head")]
    assert states == [2 * WEIGHT + FLOAT] * 2
    named = ("trunk", "inserted", "head", "loss", "optimizer")
    assert list(peak.by_scope) == [place for place in named if place in peak.by_scope]


def test_without_a_backward_pass_nothing_is_saved() -> None:
    model, x = Two(), torch.randn(BATCH, WIDTH)
    with torch.no_grad(), MemoryTracker(model, scopes=places(model)) as tracker:
        model(x)
    assert tracker.peak.saved == 0 and tracker.peak.transient == tracker.peak.activations > 0


def test_the_backward_pass_is_told_by_place() -> None:
    """The largest is what only the trunk's backward pass makes."""

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


def test_what_is_computed_again_belongs_to_its_module() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, 100 * WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            def code(y: Tensor) -> Tensor:
                return F.gelu(self.inner(y)).mean(1, keepdim=True)

            out: Tensor = checkpoint(code, x, use_reentrant=False)
            return out

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Again(), nn.Linear(1, 1))
    named = {"first": [model[0]], "again": [model[1]], "last": [model[2]]}
    with MemoryTracker(model, scopes=named) as tracker:
        model(torch.randn(BATCH, WIDTH)).sum().backward()
    assert tracker.peak.by_scope["again"]["transient"] >= 2 * 100 * MAP
    assert not any(model[1].inner._forward_hooks)  # and nothing is left behind
