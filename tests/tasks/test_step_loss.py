"""The gradient of a batch does not depend on micro-batches or processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotune.detectors.assigner import sampling_seed
from geotune.methods.core.stem import Stem
from geotune.tasks.step_loss import MeanLoss, StepLoss
from geotune.types import IGNORE, FeatureMaps
from helpers.components import DETECTORS, known_options, make_decoder, make_task

CLASSES = ("a", "b", "c")
SIZE = 6
PIXEL_TASKS: dict[str, dict[str, Any]] = {
    "ce": {"kind": "segment", "loss": "ce"},
    "weighted ce": {"kind": "segment", "loss": "ce", "class_weights": [0.01, 1.0, 7.0]},
    "ce and focal": {"kind": "segment", "loss": "ce+focal", "class_weights": [2.0, 0.5, 1.0]},
    "classify": {"kind": "classify"},
    "weighted classify": {"kind": "classify", "class_weights": [0.1, 1.0, 9.0]},
    "smooth classify": {"kind": "classify", "class_weights": [1, 2, 3], "label_smoothing": 0.2},
    "multilabel": {"kind": "classify", "multilabel": True, "class_weights": [0.1, 1.0, 9.0]},
    **{f"regress {loss}": {"kind": "regress", "loss": loss} for loss in ("l1", "l2", "huber")},
    "regress images": {"kind": "regress", "level": "image"},
    "density": {"kind": "density", "loss": "l2"},
}
Split = list[list[slice]]
"""For each process, its micro-batches as slices of the batch."""


@st.composite
def splits(draw: st.DrawFn, windows: int) -> Split:
    """A batch of `windows` among one or two processes, each with micro-batches of any size."""
    border = draw(st.sampled_from([windows, windows // 2]))
    processes = []
    for start, stop in ((0, border), (border, windows)):
        cuts = draw(st.sets(st.integers(start + 1, stop - 1))) if stop - start > 1 else set()
        edges = [start, *sorted(cuts), stop]
        if stop > start:
            processes.append([slice(a, b) for a, b in pairwise(edges)])
    return processes


def gradients(
    task: Any,
    forward: Callable[[slice], Any],
    targets: Any,
    parameters: Sequence[Tensor],
    split: Split,
) -> list[Tensor]:
    """The averaged gradients of all processes, as DDP computes them."""
    world = len(split)
    own = [slice(micros[0].start, micros[-1].stop) for micros in split]
    with torch.no_grad():
        counts = [
            task.loss_counts(forward(micros[0]), targets[o])
            for micros, o in zip(split, own, strict=True)
        ]
        total = sum(torch.stack([c.float() for c in count.values()]) for count in counts)
    for parameter in parameters:
        parameter.grad = None
    for micros, windows in zip(split, own, strict=True):
        loss_of = StepLoss(task, targets[windows], lambda _: total, world)
        for micro in micros:
            (loss_of(forward(micro), targets[micro]) / world).backward()
    return [parameter.grad.clone() for parameter in parameters]  # type: ignore[union-attr]


def make_pixel_task(options: dict[str, Any]) -> Any:
    options = dict(options)
    kind = options.pop("kind")
    if kind in ("segment", "classify"):
        options["classes"] = list(CLASSES)
    elif kind == "regress":
        options |= {"quantity": "height", "mean": 3.0, "std": 2.0}
    else:
        options |= {"objects": "trees", "std": 0.5}
    return make_task(kind, **options)


def random_targets(task: Any, name: str, windows: int, seed: int) -> Tensor:
    """Labels of which each window has another share, down to none."""
    generator = torch.Generator().manual_seed(seed)
    shape = task.example_targets(SIZE).expand(windows, *task.example_targets(SIZE).shape[1:]).shape
    share = torch.rand(windows, generator=generator).view(-1, *[1] * (len(shape) - 1)) ** 3
    labelled = torch.rand(shape, generator=generator) < share
    if name == "multilabel":
        return labelled.float()
    if name.endswith("classify"):
        return torch.randint(len(CLASSES), shape, generator=generator)
    if "ce" in name.split():
        return torch.randint(len(CLASSES), shape, generator=generator).where(labelled, IGNORE)
    return torch.randn(shape, generator=generator).where(labelled, torch.nan)


@pytest.mark.parametrize("name", PIXEL_TASKS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), windows=st.integers(2, 6), seed=st.integers(0, 2**16))
def test_gradient_is_that_of_the_whole_batch(
    name: str, data: st.DataObject, windows: int, seed: int
) -> None:
    task = make_pixel_task(PIXEL_TASKS[name])
    targets = random_targets(task, name, windows, seed)
    torch.manual_seed(seed)
    per_pixel = targets.ndim == 3
    images = torch.randn(windows, 4, *([SIZE, SIZE] if per_pixel else [1, 1]))
    weight = torch.randn(task.num_outputs, 4, 1, 1, requires_grad=True)

    def forward(micro: slice) -> Tensor:
        outputs = nn.functional.conv2d(images[micro], weight)
        return outputs if per_pixel else outputs.flatten(1)

    whole = slice(0, windows)
    expected = torch.autograd.grad(task.loss(forward(whole), targets), weight)
    found = gradients(task, forward, targets, [weight], data.draw(splits(windows)))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)

    mean = MeanLoss(task)
    for i in range(windows):
        mean.update(forward(slice(i, i + 1)), targets[i : i + 1])
    torch.testing.assert_close(mean.compute(), task.loss(forward(whole), targets).detach())


SIDE = 32
SMALL = {"channels": 8, "depth": 1, "hidden": 8, "num_levels": 2, "anchor_size": 3.0}


@pytest.mark.parametrize("kind", DETECTORS)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_gradient_of_a_detector_is_that_of_the_whole_batch(
    kind: str, data: st.DataObject, seed: int
) -> None:
    windows = 4
    torch.manual_seed(seed)
    stem = Stem(bands=3, width=4).eval()
    detector = make_decoder(kind, stem.taps, 2, **known_options(kind, SMALL))
    images = torch.randn(windows, 3, SIDE, SIDE)
    targets = [random_objects(count, bool(detector.oriented)) for count in (0, 1, 7, 3)]
    task = make_task("detect", classes=["a", "b"])

    def forward(micro: slice) -> Any:
        with torch.no_grad():
            maps = stem(images[micro])
        features = FeatureMaps(maps, (SIDE, SIDE))
        return detector(features, (SIDE, SIDE), targets[micro])

    parameters = list(detector.parameters())
    with sampling_seed(seed):
        loss = task.loss(forward(slice(0, windows)), targets)
        expected = torch.autograd.grad(loss, parameters)
        found = gradients(task, forward, targets, parameters, data.draw(splits(windows)))
    # a convolution rounds differently for other numbers of windows
    whole, error = (
        torch.cat([x.flatten() for x in gradient]).norm()
        for gradient in (expected, [a - b for a, b in zip(found, expected, strict=True)])
    )
    assert error <= 1e-5 * whole


def random_objects(count: int, oriented: bool) -> dict[str, Tensor]:
    centers, sides = 6 + 20 * torch.rand(count, 2), 4 + 6 * torch.rand(count, 2)
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=1)
    if oriented:
        boxes = torch.cat([centers, sides, torch.rand(count, 1)], dim=1)
    return {
        "boxes": boxes,
        "labels": torch.randint(2, (count,)),
        "difficult": torch.rand(count) < 0.2,
    }


def test_a_window_with_few_labels_does_not_weigh_as_much_as_a_full_one() -> None:
    """One window with 8 labelled pixels of 4096 beside a full one."""
    task = make_task("segment", classes=["a", "b"], loss="ce")
    masks = torch.zeros(2, 64, 64, dtype=torch.long)
    masks[1] = IGNORE
    masks[1, 0, :8] = 1
    logits = torch.zeros(2, 2, 64, 64)
    logits[:, 0] = 1.0
    log_p = torch.log_softmax(torch.tensor([1.0, 0.0]), 0)  # -0.313 and -1.313
    expected = -(4096 * log_p[0] + 8 * log_p[1]) / 4104
    loss_of = StepLoss(task, masks)
    micros = [loss_of(logits[i : i + 1], masks[i : i + 1]) for i in range(2)]
    found = torch.stack(micros).sum()
    torch.testing.assert_close(found, expected)


def test_windows_without_labels_leave_the_gradient_of_dice() -> None:
    """In micro-batches of one window, a batch of a labelled and three other windows."""
    task = make_task("segment", classes=list(CLASSES), loss="dice")
    masks = torch.full((4, SIZE, SIZE), IGNORE)
    masks[0] = torch.randint(len(CLASSES), (SIZE, SIZE))
    logits = torch.randn(4, len(CLASSES), SIZE, SIZE, requires_grad=True)
    expected = torch.autograd.grad(task.loss(logits, masks), logits)[0]
    loss_of, mean = StepLoss(task, masks), MeanLoss(task)
    for i in range(4):
        loss_of(logits[i : i + 1], masks[i : i + 1]).backward()
        mean.update(logits[i : i + 1], masks[i : i + 1])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)
    torch.testing.assert_close(mean.compute(), task.loss(logits, masks).detach())
