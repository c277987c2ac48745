"""Box losses compared with the papers' formulas, and cases where those formulas fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.box_losses import giou_loss, kfiou_loss, probiou_loss
from geotune.boxes.oriented import canonical

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "probiou": probiou_loss,
    "bhattacharyya": lambda a, b: probiou_loss(a, b, bounded=False),
    "kfiou": kfiou_loss,
}
Make = Callable[..., np.ndarray]


def covariance(boxes: Tensor, factor: float) -> Tensor:
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return turn @ torch.diag_embed(boxes[:, 2:4] ** 2 * factor) @ turn.mT


def pairs(random_boxes: Make, n: int = 200) -> tuple[Tensor, Tensor]:
    first = torch.from_numpy(random_boxes(n, 0))
    return first, torch.from_numpy(random_boxes(n, 1))


def test_bhattacharyya_distance_equals_the_papers_formula(random_boxes: Make) -> None:
    first, second = pairs(random_boxes)
    s1, s2 = covariance(first, 1 / 12), covariance(second, 1 / 12)
    offset, mean = (first - second)[:, :2, None], (s1 + s2) / 2
    distance = (offset.mT @ torch.linalg.inv(mean) @ offset).flatten() / 8
    distance += (mean.det() / (s1.det() * s2.det()).sqrt()).log() / 2
    assert torch.allclose(probiou_loss(first, second, bounded=False), distance)
    hellinger = (1 - (-distance).exp()).sqrt()
    assert torch.allclose(probiou_loss(first, second), hellinger, atol=2e-3)


def test_kfiou_equals_the_papers_formula(random_boxes: Make) -> None:
    first, second = pairs(random_boxes)
    second[:, :2] = first[:, :2]
    s1, s2 = covariance(first, 1 / 4), covariance(second, 1 / 4)
    kalman = s1 - s1 @ torch.linalg.inv(s1 + s2) @ s1
    v1, v2, v = (4 * s.det().sqrt() for s in (s1, s2, kalman))
    assert torch.allclose(v1, first[:, 2] * first[:, 3])
    assert torch.allclose(kfiou_loss(first, second), -(3 * v / (v1 + v2 - v)).log(), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str, random_boxes: Make) -> None:
    first, second = pairs(random_boxes, 20)
    first = torch.cat([first, second + 0.01])
    second = torch.cat([second, second])
    assert torch.autograd.gradcheck(
        LOSSES[name], (first.requires_grad_(), second.requires_grad_()), atol=1e-4
    )


@pytest.mark.parametrize("name", LOSSES)
def test_equal_boxes_have_zero_loss_and_gradient(name: str, random_boxes: Make) -> None:
    boxes = torch.from_numpy(random_boxes(50)).float().requires_grad_()
    loss = LOSSES[name](boxes, boxes.detach())
    assert loss.abs().max() < 1e-6
    loss.sum().backward()
    assert boxes.grad is not None and boxes.grad.abs().max() < 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_loss_does_not_depend_on_the_description_of_a_rectangle(
    name: str, random_boxes: Make
) -> None:
    first, second = pairs(random_boxes)
    other = second[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2])
    loss = LOSSES[name](first, second)
    if name != "kfiou":  # its centre loss depends on the order of the target's sides
        assert torch.allclose(LOSSES[name](first, other), loss)
    assert torch.allclose(LOSSES[name](first, canonical(other)), loss)
    assert torch.allclose(LOSSES[name](first + torch.tensor([0, 0, 0, 0, math.pi]), second), loss)
    assert (loss > 0).all()


EXTREME = {
    "thin": ([50, 50, 400, 1e-3, 0.7], [50, 50, 400, 1e-3, 0.7 + math.pi / 2]),
    "zero size": ([50, 50, 0, 0, 0], [50, 50, 30, 10, 1]),
    "far apart": ([0, 0, 10, 5, 0], [1e4, 1e4, 10, 5, 1]),
    "far apart and thin": ([0, 0, 10, 1e-3, 0], [1e3, 1e3, 10, 1e-3, 1]),
    "tiny and huge": ([0, 0, 1e-2, 1e-2, 0], [0, 0, 1e4, 1e4, 1]),
    "squares": ([0, 0, 10, 10, 0], [0, 0, 10, 10, 0.5]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", EXTREME)
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_boxes_have_finite_losses_and_gradients(
    name: str, kind: str, dtype: torch.dtype
) -> None:
    predicted, target = (torch.tensor([box], dtype=dtype) for box in EXTREME[kind])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = LOSSES[name](predicted.requires_grad_(), target)
    assert loss.dtype == torch.float32 and torch.isfinite(loss).all() and (loss >= 0).all()
    loss.sum().backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad.float()).all() or dtype == torch.float16, "may overflow"


@pytest.mark.parametrize("name", LOSSES)
def test_angle_of_a_square_has_no_gradient(name: str) -> None:
    square = torch.tensor([[0.0, 0, 10, 10, 0.2]], requires_grad=True)
    LOSSES[name](square, torch.tensor([[0.0, 0, 20, 5, 0.7]])).sum().backward()
    assert square.grad is not None and square.grad[0, 4].abs() < 1e-6
    long = torch.tensor([[0.0, 0, 11, 9, 0.2]], requires_grad=True)
    LOSSES[name](long, torch.tensor([[0.0, 0, 20, 5, 0.7]])).sum().backward()
    assert long.grad is not None and long.grad[0, 4].abs() > 1e-3


@pytest.mark.parametrize("name", ["bhattacharyya", "kfiou"])
def test_minimising_the_loss_moves_a_box_to_its_target(name: str) -> None:
    target = torch.tensor([[40.0, 30, 25, 6, -1.4]])
    parameters = [torch.tensor(values) for values in ([[10.0, 10]], [[2.5, 2.3]], [[1.2]])]
    centre, sides, angle = parameters
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.LBFGS(parameters, max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        box = torch.cat([centre, sides.exp(), angle], -1)
        value = LOSSES[name](box, target).sum()
        value.backward()
        return value

    optimizer.step(loss)
    box = torch.cat([centre, sides.exp(), angle], -1)
    assert torch.allclose(canonical(box.detach()), target, atol=0.1)


def test_giou_equals_torchvisions() -> None:
    corner = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 20
    side = 0.1 + corner.flip(1)
    boxes = torch.cat([corner[:, :2], corner[:, :2] + side[:, :2]], dim=1)
    others = torch.cat([corner[:, 2:], corner[:, 2:] + side[:, 2:]], dim=1)
    theirs = torchvision.ops.generalized_box_iou_loss(boxes, others)
    torch.testing.assert_close(giou_loss(boxes, others), theirs)
    torch.testing.assert_close(giou_loss(boxes, boxes), torch.zeros(200))
