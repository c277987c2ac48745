"""Live tensor bytes, computed by hand on small examples; equal on real and fake tensors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

from geotune.memory.tracker import MemoryTracker, TrackedPeak, to_fake

FLOAT = 4
BATCH, WIDTH, DEPTH = 32, 8, 3
MAP = BATCH * WIDTH * FLOAT
WEIGHT = WIDTH * WIDTH * FLOAT


def make_layers() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)))


def peak_of(code: Callable[[], object], model: nn.Module, others: object = None) -> TrackedPeak:
    with MemoryTracker(model, others=others) as tracker:
        code()
    return tracker.peak


def test_peak_inside_the_backward_pass() -> None:
    """The peak is in the second last layer: two saved maps and two gradients of maps."""
    model, x = make_layers(), torch.randn(BATCH, WIDTH)
    peak = peak_of(lambda: model(x).sum().backward(), model, x)
    loss = 2 * FLOAT  # and its own gradient
    assert peak.trained == DEPTH * WEIGHT
    assert peak.gradients == 2 * WEIGHT
    assert peak.activations == (2 + 2) * MAP + loss
    assert peak.frozen == peak.optimizer_state == 0
    assert peak.total == peak.trained + peak.gradients + peak.activations


def test_frozen_layers_before_the_first_trained_one_save_nothing() -> None:
    model, x = make_layers(), torch.randn(BATCH, WIDTH)
    model[:2].requires_grad_(False)
    held: list[Tensor] = []
    peak = peak_of(lambda: held.append(model(x)), model, x)
    assert (peak.frozen, peak.trained) == (2 * WEIGHT, WEIGHT)
    assert peak.activations == 3 * MAP  # x; a layer's input and output
    after = peak_of(lambda: torch.zeros(()), model, held)
    assert after.activations == MAP + FLOAT


def test_no_grad_needs_two_maps_besides_the_batch() -> None:
    model, x = make_layers(), torch.randn(BATCH, WIDTH)
    with torch.no_grad():
        assert peak_of(lambda: model(x), model, x).activations == 3 * MAP


def test_views_and_inplace_operations_count_once() -> None:
    def code() -> None:
        x = torch.zeros(BATCH, WIDTH)
        views = [x.t(), x[1:], x.flatten(), x.expand(5, BATCH, WIDTH)]
        x.add_(1).mul_(2)
        views[0].relu_()

    assert peak_of(code, nn.Identity()).total == MAP


def test_view_keeps_the_whole_storage_alive() -> None:
    def code() -> None:
        row = torch.zeros(BATCH, WIDTH)[0]
        row.clone()

    assert peak_of(code, nn.Identity()).total == MAP + WIDTH * FLOAT


def test_earlier_tensor_counts_from_its_first_use() -> None:
    x = torch.zeros(BATCH, WIDTH)
    assert peak_of(lambda: x.sum(), nn.Identity()).total == MAP + FLOAT
    assert peak_of(lambda: None, nn.Identity()).total == 0
    assert peak_of(lambda: None, nn.Identity(), {"images": [x, x.t()]}).total == MAP


def test_resized_storage_counts_with_its_new_size() -> None:
    def code() -> None:
        x = torch.zeros(10)
        x.resize_(1000)
        x.untyped_storage().resize_(0)
        x.detach()
        torch.zeros(999)

    assert peak_of(code, nn.Identity()).total == 1000 * FLOAT


def test_inner_tensors_of_a_subclass_count() -> None:
    a, b = torch.zeros(10), torch.zeros(10)
    peak = peak_of(lambda: TwoTensor(a, b) + 1, nn.Identity(), TwoTensor(a, b))
    assert peak.total == 4 * 10 * FLOAT


def test_buffers_count_as_frozen() -> None:
    peak = peak_of(lambda: None, nn.BatchNorm1d(WIDTH))
    assert peak.trained == 2 * WIDTH * FLOAT
    assert peak.frozen == 2 * WIDTH * FLOAT + 8  # mean, variance; steps as int64


def test_accumulated_gradients_count_once() -> None:
    model, x = make_layers(), torch.randn(1, WIDTH)
    model(x).sum().backward()

    def twice() -> None:
        for _ in range(2):
            model(x).sum().backward()

    peak = peak_of(twice, model, x)
    assert peak.gradients == DEPTH * WEIGHT
    assert peak.activations > WEIGHT  # the gradient that is added


def test_autocast_keeps_casts_of_trained_weights() -> None:
    model, x = make_layers(), torch.randn(1, WIDTH)

    def code() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(x)

    cast_x, cast_weight = WIDTH * 2, WEIGHT // 2
    frozen = peak_of(code, model.requires_grad_(False), x).activations
    assert frozen == WIDTH * FLOAT + cast_x + cast_weight + WIDTH * 2  # one layer at a time
    trained = peak_of(code, model.requires_grad_(True), x).activations
    assert trained >= WIDTH * FLOAT + cast_x + DEPTH * cast_weight


def test_optimizer_state_counts_from_its_first_step() -> None:
    model, x = make_layers(), torch.randn(1, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    model(x).sum().backward()
    with MemoryTracker(model, optimizer) as tracker:
        optimizer.step()
    steps = DEPTH * FLOAT
    assert tracker.peak.optimizer_state == 2 * DEPTH * WEIGHT + steps
    assert tracker.peak.gradients == DEPTH * WEIGHT
    with MemoryTracker(model, optimizer) as tracker:
        pass
    assert tracker.peak.optimizer_state == 2 * DEPTH * WEIGHT + steps


def test_tracker_keeps_no_references() -> None:
    model, x = make_layers(), torch.randn(BATCH, WIDTH)
    gc.collect()
    gc.disable()  # so that reference cycles are detected
    try:
        with MemoryTracker(model, others=x) as tracker:
            y = model(x)
            y.sum().backward()
        seen = [weakref.ref(thing) for thing in (model, model[0].weight.grad, x, y)]
        del model, x, y
        assert [ref() for ref in seen] == [None] * 4
        assert tracker.peak.total > 0
    finally:
        gc.enable()


def test_parameter_hooks_are_removed() -> None:
    model = make_layers()
    peak_of(lambda: None, model)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


# ---------------------------------------------------------------- real and fake
def two_steps(
    model: nn.Module, images: Tensor, classes: Tensor, *, bf16: bool, foreach: bool
) -> list[TrackedPeak]:
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], foreach=foreach
    )
    peaks = []
    for _ in range(2):
        with MemoryTracker(model, optimizer, (images, classes)) as tracker:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(images), classes)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        peaks.append(tracker.peak)
    return peaks


def real_and_fake(model: nn.Module, **options: bool) -> tuple[list[TrackedPeak], list[TrackedPeak]]:
    images, classes = torch.randn(2, 3, 160, 160), torch.tensor([0, 1])
    mode = FakeTensorMode()
    fake = to_fake(model, mode)
    fake_batch = mode.from_tensor(images), mode.from_tensor(classes)
    real = two_steps(model, images, classes, **options)
    with mode:
        return real, two_steps(fake, *fake_batch, **options)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("foreach", [False, True], ids=["one by one", "foreach"])
@pytest.mark.parametrize("frozen", [0, 4], ids=["full", "half frozen"])
def test_fake_tensors_give_the_real_peak(bf16: bool, foreach: bool, frozen: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5)
    model.patch_embed.requires_grad_(not frozen)
    model.blocks[:frozen].requires_grad_(False)
    real, fake = real_and_fake(model, bf16=bf16, foreach=foreach)
    assert real == fake
    assert (real[0].frozen > 0) == (frozen > 0)
    assert real[1].optimizer_state == 2 * real[1].trained + FLOAT * sum(
        p.requires_grad for p in model.parameters()
    )


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_recomputed_activations_are_counted(bf16: bool) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5)
    plain, _ = real_and_fake(model, bf16=bf16, foreach=False)
    for block in model.blocks:
        block.forward = Checkpointed(block.forward)
    real, fake = real_and_fake(model, bf16=bf16, foreach=False)
    assert real == fake
    assert real[1].activations < 0.7 * plain[1].activations


class Checkpointed:
    """A function that is recomputed in the backward pass."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.function, x, use_reentrant=False)
        return result
