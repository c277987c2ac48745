"""The loss of a distillation: values by hand, pixels without data, micro-batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geotune.config.distill_options import DistillOptions
from geotune.config.task_options import (
    ClassifyOptions,
    DensityOptions,
    RegressOptions,
    SegmentOptions,
)
from geotune.tasks.classify import Classify
from geotune.tasks.density import Density
from geotune.tasks.distillation import (
    DistillationLoss,
    DistilledOutputs,
    bernoulli_divergence,
    softmax_divergence,
)
from geotune.tasks.regress import Regress
from geotune.tasks.segment import Segment
from geotune.tasks.step_loss import StepLoss, combine
from geotune.types import IGNORE, Batch

NAN = math.nan


def segment() -> Segment:
    return Segment(SegmentOptions(kind="segment", classes=["a", "b"], loss="ce"))


def loss_of(task: Any, teacher: Any = None, divisor: int = 2, **options: Any) -> DistillationLoss:
    return DistillationLoss(task, teacher or task, DistillOptions(run="t", **options), divisor)


def total(loss: DistillationLoss, outputs: DistilledOutputs, batch: Batch) -> float:
    return float(combine(loss.loss_sums(outputs, batch), loss.loss_counts(outputs, batch)))


def test_divergence_by_hand() -> None:
    """KL of (3/4, 1/4) from (1/2, 1/2), and of a coin of 1/4 from one of 1/2."""
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    assert float(softmax_divergence(student, teacher)) == pytest.approx(expected, abs=1e-6)
    coin = torch.tensor([[-math.log(3)]])
    assert float(bernoulli_divergence(torch.zeros(1, 1), coin)) == pytest.approx(expected, abs=1e-6)


def test_all_terms_by_hand() -> None:
    """A window of 1x2 pixels of the classes a and b; the second pixel has no data.

    The student gives equal logits: the task's loss is log 2, the mean over both labels. The teacher
    says a with odds of 9, which are 3 at a temperature of 2. The maps of the only cell, of which
    half has data, are at an angle of 60 degrees.
    """
    batch = Batch({"images": torch.tensor([[[[5.0, NAN]]]])}, torch.tensor([[[0, 1]]]))
    teacher = torch.tensor([[[[math.log(9), 100.0]], [[0.0, -100.0]]]])
    maps = torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])
    pair = (maps[0].view(1, 2, 1, 1), maps[1].view(1, 2, 1, 1))
    outputs = DistilledOutputs(torch.zeros(1, 2, 1, 2), teacher, [pair])
    loss = loss_of(segment(), outputs_weight=0.5, features_weight=3.0, temperature=2.0)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    expected = math.log(2) + 0.5 * 2**2 * divergence + 3.0 * 0.5
    assert total(loss, outputs, batch) == pytest.approx(expected, abs=1e-5)


def test_pixels_without_data_do_not_count() -> None:
    """Whatever the teacher gives there; an unlabelled pixel with data in one band counts."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 4, 4)
    images[0, :, :2, :2] = NAN  # one cell of a 2x2 grid, and no other
    images[1, :2] = NAN
    batch = Batch({"images": images}, torch.full((2, 4, 4), IGNORE))
    student, teacher = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    mine, taught = torch.randn(2, 5, 2, 2), torch.randn(2, 5, 2, 2)
    loss = loss_of(segment())
    before = total(loss, DistilledOutputs(student, teacher, [(mine, taught)]), batch)
    other, map_ = teacher.clone(), taught.clone()
    other[0, :, :2, :2], map_[0, :, 0, 0] = 50.0, -7.0
    assert total(loss, DistilledOutputs(student, other, [(mine, map_)]), batch) == before > 0
    other[0, 0, 3, 3] += 1
    assert total(loss, DistilledOutputs(student, other, [(mine, map_)]), batch) != before
    map_[1, :, 0, 0] *= -1
    counted = total(loss, DistilledOutputs(student, teacher, [(mine, map_)]), batch)
    assert counted != before


def test_windows_without_any_data_give_no_loss() -> None:
    batch = Batch({"images": torch.full((1, 1, 2, 2), NAN)}, torch.full((1, 2, 2), IGNORE))
    outputs = DistilledOutputs(
        torch.randn(1, 2, 2, 2), torch.randn(1, 2, 2, 2), [(torch.ones(1, 1, 1, 1),) * 2]
    )
    assert total(loss_of(segment()), outputs, batch) == 0


def test_padding_of_the_teacher_does_not_count() -> None:
    """A window of 2x2 pixels in one cell of 4x4, and three cells beyond it."""
    batch = Batch({"images": torch.zeros(1, 1, 2, 2)}, torch.zeros(1, 2, 2, dtype=torch.long))
    mine = torch.ones(1, 1, 2, 2)
    taught = torch.tensor([[[[1.0, -1.0], [-1.0, -1.0]]]])
    loss = loss_of(segment(), divisor=4, outputs_weight=0.0)
    outputs = DistilledOutputs(torch.zeros(1, 2, 2, 2), None, [(mine, taught)])
    assert total(loss, outputs, batch) == pytest.approx(math.log(2), abs=1e-6)


def test_several_maps_share_the_weight() -> None:
    batch = Batch({"images": torch.zeros(1, 1, 2, 2)}, torch.zeros(1, 2, 2, dtype=torch.long))
    one = torch.ones(1, 1, 1, 1)
    loss = loss_of(segment(), features_weight=3.0, outputs_weight=0.0)
    outputs = DistilledOutputs(torch.zeros(1, 2, 2, 2), None, [(one, -one), (one, one)])
    assert total(loss, outputs, batch) == pytest.approx(math.log(2) + 3.0 * 2 / 2, abs=1e-5)


def test_numbers_are_compared_in_units_of_the_labels() -> None:
    """The teacher's 1 is 10 + 4 = 14, the student's 2 is 8 + 2 * 2 = 12: one deviation apart."""
    images = {"images": torch.zeros(1, 1, 1, 1)}
    teacher = Regress(RegressOptions(kind="regress", mean=10, std=4))
    student = Regress(RegressOptions(kind="regress", mean=8, std=2))
    loss = loss_of(student, teacher, features_weight=0.0, temperature=9.0)
    outputs = DistilledOutputs(torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1), [])
    unlabelled = Batch(images, torch.full((1, 1, 1), NAN))
    assert total(loss, outputs, unlabelled) == pytest.approx(0.5)  # |x| - 0.5 from 1 on
    counts = Density(DensityOptions(kind="density", objects="trees", std=2))
    outputs = DistilledOutputs(torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1), [])
    loss = loss_of(counts, features_weight=0.0)
    assert total(loss, outputs, unlabelled) == pytest.approx(1.5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_whole_images(multilabel: bool) -> None:
    """The mean over images with data, and over the classes if an image can have several."""
    options = ClassifyOptions(kind="classify", classes=["a", "b"], multilabel=multilabel)
    task = Classify(options)
    images = torch.zeros(3, 1, 2, 2)
    images[2] = NAN
    targets = torch.zeros(3, 2) if multilabel else torch.zeros(3, dtype=torch.long)
    batch = Batch({"images": images}, targets)
    student, teacher = torch.zeros(3, 2), torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [9.0, 1]])
    loss = loss_of(task, temperature=1.0, features_weight=0.0)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    expected = math.log(2) + divergence / 2 / (2 if multilabel else 1)
    outputs = DistilledOutputs(student, teacher, [])
    assert total(loss, outputs, batch) == pytest.approx(expected, abs=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    """Also if their windows have different numbers of valid pixels."""
    torch.manual_seed(0)
    images = torch.rand(4, 1, 4, 4)
    images[0, :, 1:] = NAN
    masks = torch.randint(0, 2, (4, 4, 4))
    student = torch.randn(4, 2, 4, 4, requires_grad=True)
    teacher, mine, taught = torch.randn(4, 2, 4, 4), torch.randn(4, 3, 2, 2), torch.ones(4, 3, 2, 2)
    batch, loss = Batch({"images": images}, masks, ["x"] * 4, ["x"] * 4), loss_of(segment())

    def outputs(part: slice) -> DistilledOutputs:
        return DistilledOutputs(student[part], teacher[part], [(mine[part], taught[part])])

    with torch.no_grad():
        whole = total(loss, outputs(slice(None)), batch)
    gradients: list[Tensor] = []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 4)]):
        step = StepLoss(loss, batch)
        losses = [step(outputs(part), batch.select(part)) for part in parts]
        assert float(torch.stack(losses).sum().detach()) == pytest.approx(whole, abs=1e-5)
        gradients.append(torch.autograd.grad(torch.stack(losses).sum(), student)[0])
    torch.testing.assert_close(*gradients)


def test_agrees_with_the_divergence_of_torch() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    expected = F.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="none"
    )
    torch.testing.assert_close(softmax_divergence(student, teacher), expected.sum(1))
