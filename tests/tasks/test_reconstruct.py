"""Masked reconstruction: loss by hand, hidden pixels, the teacher of every method."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.config.decoder_options import LinearOptions
from geotune.decoders.linear import Linear
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.selective import Frozen
from geotune.reconstruction import ReconstructionModel, as_teacher, copy_of_backbone
from geotune.tasks.reconstruct import Reconstruct, Reconstruction
from geotune.tasks.step_loss import StepLoss
from geotune.types import Normalization
from helpers.components import make_task
from helpers.errors import raises
from helpers.method_cases import METHODS

NAN = math.nan


def task_of(weight: float = 1.0, patch: int = 2) -> Reconstruct:
    task: Reconstruct = make_task("reconstruct", patch=patch, teacher_weight=weight)
    return task


@pytest.fixture
def example() -> tuple[Reconstruction, Tensor]:
    """A window of 2x4 pixels and two bands, its second 2x2 patch hidden.

    Its last pixel has no data in band 1, and its first column none in either band.
    """
    image = torch.arange(16.0).reshape(1, 2, 2, 4)
    prediction = image.clone()
    prediction[0, 0, :, 2:] += torch.tensor([[1.0, -2.0], [3.0, 100.0]])
    prediction[0, 1, :, 2:] += torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    prediction[..., :2] += 1000.0  # visible: does not count
    states = torch.tensor([[[0, 1, 2, 2], [0, 1, 2, 2]]] * 2, dtype=torch.uint8)[None]
    states[0, 0, 1, 3] = 0
    first = torch.tensor([[[0.2, 0.6]]])  # a position for each patch
    second = torch.tensor([[[0.9, 0.1, 0.4, 0.3]]])  # a position for each column
    return Reconstruction(prediction, image, (first, second), (2, 4)), states


def test_loss_by_hand(example: tuple[Reconstruction, Tensor]) -> None:
    outputs, states = example
    l1 = (1 + 2 + 3 + 4 * 0.5) / 7
    # the first column has no data: of the second stage three positions count
    distance = ((0.2 + 0.6) / 2 + (0.1 + 0.4 + 0.3) / 3) / 2
    assert float(task_of(0.0).loss(outputs[:1], states)) > l1  # stages are compared if given
    assert float(task_of(2.0).loss(outputs, states)) == pytest.approx(l1 + 2 * distance)
    alone = Reconstruction(outputs.prediction, outputs.image, (), (2, 4))
    assert float(task_of(0.0).loss(alone, states)) == pytest.approx(l1)
    metrics = task_of().metrics()
    metrics.update(outputs, states)
    assert metrics.compute() == pytest.approx({"masked_l1": l1, "cosine_distance": distance})
    assert task_of().score(outputs, states) == pytest.approx(-l1)


def test_a_window_without_data_changes_neither_loss_nor_metrics(
    example: tuple[Reconstruction, Tensor],
) -> None:
    outputs, states = example
    task, nothing = task_of(), torch.zeros_like(states)
    both = Reconstruction(
        torch.cat([outputs.prediction, outputs.prediction + 7]),
        torch.cat([outputs.image, outputs.image]),
        tuple(torch.cat([d, d + 1]) for d in outputs.distances),
        outputs.padded_size,
    )
    states_of_both = torch.cat([states, nothing])
    assert float(task.loss(both, states_of_both)) == float(task.loss(outputs, states))
    metrics = task.metrics()
    metrics.update(both, states_of_both)
    alone = task.metrics()
    alone.update(outputs, states)
    assert metrics.compute() == alone.compute()
    assert math.isnan(task.score(both[1:], nothing))
    # and in micro-batches
    step = StepLoss(task, states_of_both)
    parts = [step(both[i : i + 1], states_of_both[i : i + 1]) for i in (0, 1)]
    assert float(sum(parts)) == pytest.approx(float(task.loss(outputs, states)))
    empty = task.loss(both[1:], nothing)
    assert float(empty) == 0.0


# ---------------------------------------------------------------- the model
def model_of(
    make_backbone: Callable[..., Backbone], method: Method, family: str = "vit", weight: float = 1.0
) -> ReconstructionModel:
    torch.manual_seed(0)
    backbone = make_backbone(family)
    original = copy_of_backbone(backbone) if weight else None
    encoder = method.attach(backbone)
    bands = backbone.bands
    return ReconstructionModel(
        Normalization(bands, (0.0,) * len(bands), (1.0,) * len(bands)),
        encoder,
        Linear(encoder.taps, len(bands), LinearOptions(upsample="stride")),
        patch=8,
        with_teacher=original is not None,
        teacher=None if original is None else as_teacher(original, encoder),
    ).eval()


@pytest.fixture
def windows() -> tuple[Tensor, Tensor]:
    """Two images of 40x40 pixels, and their hidden patches of 8x8."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 4, 40, 40, generator=generator)
    images[0, :, :8, :8] = NAN
    mask = torch.rand(2, 5, 5, generator=generator) < 0.5
    return images, mask


@pytest.mark.parametrize("kind", ["full", "lora", "est-side"])
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_hidden_pixels_do_not_leak_into_the_prediction(
    make_backbone: Callable[..., Backbone],
    windows: tuple[Tensor, Tensor],
    kind: str,
    family: str,
) -> None:
    images, mask = windows
    model = model_of(make_backbone, METHODS[kind].method, family)
    hidden = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(images)
    with torch.no_grad():
        before = model(images, mask=mask)
        after = model(torch.where(hidden, 5 * images + 1, images), mask=mask)
        visible = model(torch.where(hidden, images, 5 * images + 1), mask=mask)
    torch.testing.assert_close(after.prediction, before.prediction, rtol=0, atol=0)
    assert not torch.equal(visible.prediction, before.prediction)
    # the teacher sees them, and they are what is reconstructed
    assert not torch.equal(after.distances[-1], before.distances[-1])
    assert not torch.equal(after.image, before.image)
    assert before.prediction.shape == images.shape == before.image.shape


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind != "frozen"])
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_the_teacher_of_every_method_is_the_original_backbone(
    make_backbone: Callable[..., Backbone],
    windows: tuple[Tensor, Tensor],
    kind: str,
    family: str,
) -> None:
    if family in METHODS[kind].unsupported:
        pytest.skip("not supported")
    images = windows[0].nan_to_num()
    with torch.no_grad():
        expected = make_backbone(family).eval()(images)
    model = model_of(make_backbone, METHODS[kind].method, family).train()
    # change everything that trains, and update batch norm statistics
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    try:
        model(images, mask=windows[1])
    except GeotuneError as error:
        assert error.code == "calibration-missing"
    teacher = model.teacher or model.encoder.backbone
    with torch.no_grad():
        found = teacher(images)
    for one, other in zip(found.maps, expected.maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert (model.teacher is None) == METHODS[kind].backbone_frozen
    if kind == "lora":  # no second copy, except of a fused layer that peft needs split
        own = {id(p) for p in model.encoder.parameters()}
        copied = [n for n, p in teacher.named_parameters() if id(p) not in own]
        assert all("qkv" in name for name in copied)


def test_gradients_reach_the_method_but_not_the_teacher(
    make_backbone: Callable[..., Backbone], windows: tuple[Tensor, Tensor]
) -> None:
    images, mask = windows
    for kind in ("full", "est-side"):
        model = model_of(make_backbone, METHODS[kind].method).train()
        states = torch.full(images.shape, 2, dtype=torch.uint8)
        task_of(patch=8).loss(model(images, mask=mask), states).backward()
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        reached = [n for n, p in model.named_parameters() if p.grad is not None]
        assert reached == trained and any(name.startswith("projections") for name in reached)
        assert not any(name.startswith("teacher") for name in reached)


def test_equal_features_start_at_distance_zero(make_backbone: Callable[..., Backbone]) -> None:
    model = model_of(make_backbone, METHODS["full"].method)
    images = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        outputs = model(images, mask=torch.zeros(1, 4, 4, dtype=torch.bool))
    for distance in outputs.distances:
        torch.testing.assert_close(distance, torch.zeros_like(distance), atol=1e-5, rtol=0)


def test_a_method_that_trains_nothing_is_rejected(
    make_backbone: Callable[..., Backbone],
) -> None:
    with raises("settings-incompatible", key="method.kind"):
        model_of(make_backbone, Frozen(stem_width=0))
