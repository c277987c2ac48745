"""Segmentation: losses compared with independent ones, ignored pixels, postprocessing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from geotune.config.task_options import LOSS_TERMS
from geotune.tasks import pixel_losses
from geotune.types import IGNORE
from helpers.components import make_task

GOLDEN = Path(__file__).parent / "golden_losses.json"
NAMES = ["background", "water", "field"]
LOSSES = ["ce", "dice", "focal", "ce+dice", "ce+dice+focal"]


def batch(ignored: float = 0.2, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, classes, 9, 7, generator=generator)
    masks = torch.randint(classes, (2, 9, 7), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < ignored] = IGNORE
    return logits, masks


def golden_batch() -> tuple[Tensor, Tensor]:
    """Values that do not depend on a random generator."""
    steps = torch.arange(2 * 3 * 5 * 4, dtype=torch.float64)
    logits = (3 * torch.sin(1.7 * steps)).float().view(2, 3, 5, 4)
    masks = (torch.arange(2 * 5 * 4) * 7 % 11 % 3).view(2, 5, 4)
    masks[:, 0, 1:3] = IGNORE
    return logits, masks


# ---------------------------------------------------------------- losses
def test_cross_entropy_equals_torchs() -> None:
    logits, masks = batch()
    weights = [0.2, 3.0, 1.0]
    plain = F.cross_entropy(logits, masks, ignore_index=IGNORE)
    weighted = F.cross_entropy(logits, masks, torch.tensor(weights), ignore_index=IGNORE)
    assert make_task("segment", classes=NAMES, loss="ce").loss(
        logits, masks
    ).item() == pytest.approx(plain.item())
    loss = make_task("segment", classes=NAMES, loss="ce", class_weights=weights).loss(logits, masks)
    assert loss.item() == pytest.approx(weighted.item())


@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_dice_equals_smps_if_every_class_is_present(ignored: float) -> None:
    logits, masks = batch(ignored)
    theirs = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE, eps=1e-12)(
        logits, masks.clone()
    )
    assert make_task("segment", classes=NAMES, loss="dice").loss(
        logits, masks
    ).item() == pytest.approx(theirs.item())


def test_focal_equals_smps_without_class_weights() -> None:
    logits, masks = batch(ignored=0.0, classes=2)
    theirs = smp.losses.FocalLoss("binary", gamma=2)(logits[:, 1] - logits[:, 0], masks)
    ours = make_task("segment", classes=NAMES[:2], loss="focal").loss(logits, masks)
    assert ours.item() == pytest.approx(theirs.item())


def test_dice_by_hand_leaves_out_absent_classes() -> None:
    # One row of three pixels, the last one ignored; the third class is absent.
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]])
    logits = probs.log().T.reshape(1, 3, 1, 3)
    masks = torch.tensor([[[0, 1, IGNORE]]])
    first = 1 - 2 * 0.7 / (1.0 + 1)
    second = 1 - 2 * 0.6 / (0.8 + 1)
    loss = make_task("segment", classes=NAMES, loss="dice").loss(logits, masks)
    assert loss.item() == pytest.approx((first + second) / 2)


def test_focal_by_hand_with_class_weights() -> None:
    logits = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log().T.reshape(1, 2, 1, 2)
    masks = torch.tensor([[[0, 1]]])
    expected = -(1 * 0.3**2 * math.log(0.7) + 5 * 0.4**2 * math.log(0.6)) / 6
    loss = make_task("segment", classes=NAMES[:2], loss="focal", class_weights=[1.0, 5.0]).loss(
        logits, masks
    )
    assert loss.item() == pytest.approx(expected)


def test_combined_loss_is_the_sum_of_its_terms() -> None:
    logits, masks = batch()
    parts = [
        make_task("segment", classes=NAMES, loss=term).loss(logits, masks).item()
        for term in ("ce", "dice", "focal")
    ]
    assert make_task("segment", classes=NAMES, loss="ce + dice+focal").loss(
        logits, masks
    ).item() == pytest.approx(sum(parts))


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_change_neither_loss_nor_gradient(loss: str) -> None:
    logits, masks = batch()
    task = make_task("segment", classes=NAMES, loss=loss, class_weights=[1.0, 2.0, 3.0])
    hidden = (masks == IGNORE).unsqueeze(1).expand_as(logits)
    values, gradients = [], []
    for noise in (0.0, 50.0):
        x = (logits + noise * hidden * torch.randn_like(logits)).requires_grad_()
        value = task.loss(x, masks)
        value.backward()
        assert x.grad is not None
        values.append(value.item())
        gradients.append(x.grad)
    assert hidden.any() and values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[0][hidden].any()
    assert (gradients[0].abs().sum(1)[masks != IGNORE] > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_zero_with_a_graph_if_every_pixel_is_ignored(loss: str) -> None:
    logits, masks = batch()
    logits.requires_grad_()
    value = make_task("segment", classes=NAMES, loss=loss).loss(
        logits, torch.full_like(masks, IGNORE)
    )
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_float32_under_autocast_and_decreases_along_its_gradient(loss: str) -> None:
    logits, masks = batch()
    task = make_task("segment", classes=NAMES, loss=loss)
    exact = task.loss(logits.bfloat16().float(), masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = task.loss(logits.bfloat16(), masks)
    assert value.dtype == torch.float32 and value.item() == exact.item()
    x = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(x, masks), x)
    assert task.loss(x - gradient, masks) < task.loss(x, masks)


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_logits_stay_finite(loss: str) -> None:
    logits, masks = batch()
    x = (1e4 * logits).requires_grad_()
    value = make_task("segment", classes=NAMES, loss=loss).loss(x, masks)
    value.backward()
    assert value.isfinite() and x.grad is not None and x.grad.isfinite().all()


def test_golden_losses() -> None:
    logits, masks = golden_batch()
    golden = json.loads(GOLDEN.read_text())
    values = {
        loss: make_task("segment", classes=NAMES, loss=loss).loss(logits, masks).item()
        for loss in LOSSES
    }
    values["ce, weights 1 2 4"] = (
        make_task("segment", classes=NAMES, loss="ce", class_weights=[1, 2, 4])
        .loss(logits, masks)
        .item()
    )
    values["focal, weights 1 2 4"] = (
        make_task("segment", classes=NAMES, loss="focal", class_weights=[1, 2, 4])
        .loss(logits, masks)
        .item()
    )
    assert values == pytest.approx(golden, rel=1e-6)


# ---------------------------------------------------------------- construction
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "ce+jaccard"}, "'jaccard', expected ce, dice, focal"),
        ({"loss": ""}, "''"),
        ({"class_weights": [1.0]}, "1 values for 3 classes"),
        ({"classes": ["ship"]}, "at least 2 items"),
        ({"classes": [str(i) for i in range(256)]}, "256 classes, expected at most 255"),
    ],
)
def test_invalid_options_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_task("segment", **{"classes": NAMES, **values})


# ---------------------------------------------------------------- postprocessing
def test_predict_and_postprocess() -> None:
    logits, _ = batch()
    task = make_task("segment", classes=NAMES)
    assert task.num_outputs == 3
    classes, probabilities = task.predict(logits.bfloat16()), task.postprocess(logits.bfloat16())
    assert classes.dtype == torch.uint8 and classes.shape == (2, 9, 7)
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(1), torch.ones(2, 9, 7))
    assert torch.equal(probabilities.argmax(1), classes.long())


def test_window_score_is_the_mean_over_present_classes() -> None:
    predicted = torch.tensor([[[0, 0, 1, 1]]])
    mask = torch.tensor([[[0, 1, 1, IGNORE]]])
    logits = 10.0 * F.one_hot(predicted, 3).permute(0, 3, 1, 2)
    task = make_task("segment", classes=NAMES)
    assert task.score(logits, mask) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert task.score(logits, predicted) == 1
    assert math.isnan(task.score(logits, torch.full_like(mask, IGNORE)))


def test_options_know_every_loss() -> None:
    assert tuple(pixel_losses.LOSSES) == LOSS_TERMS
