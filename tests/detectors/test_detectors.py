"""Contract tests of every detector: tap lists, with and without objects, fake tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geotune.boxes.oriented import as_oriented
from geotune.detectors.assigner import BACKGROUND, GroundTruth
from geotune.detectors.base import Detector
from geotune.detectors.fcos import FcosGrid, assign_targets
from geotune.detectors.postprocess import Postprocessor
from geotune.registry import DECODERS
from geotune.types import FeatureMaps, Tap
from helpers.components import DETECTORS, known_options, make_decoder
from helpers.errors import raises

SIZE = 61, 75
CLASSES = 3
TAPS = {
    "pyramid": [(8, 4.0), (12, 8.0), (16, 16.0), (20, 32.0)],
    "plain": [(8, 16.0)] * 4,
    "patch of 14": [(8, 14.0)] * 2,
    "patch of 4": [(8, 4.0)] * 4,
    "single": [(8, 32.0)],
}


def taps_of(name: str, stem: bool = False) -> list[Tap]:
    first = [Tap(f"stem{s}", 4, float(s)) for s in (1, 2, 4)] if stem else []
    return first + [Tap(f"b{i}", c, s) for i, (c, s) in enumerate(TAPS[name])]


def features_of(taps: Sequence[Tap], batch: int = 2) -> FeatureMaps:
    generator = torch.Generator().manual_seed(0)
    sizes = [[math.ceil(side / tap.stride) for side in (64, 96)] for tap in taps]
    maps = [
        torch.randn(batch, tap.channels, *size, generator=generator)
        for tap, size in zip(taps, sizes, strict=True)
    ]
    return FeatureMaps(tuple(maps), (64, 96))


def detector_of(kind: str, taps: Sequence[Tap], **values: Any) -> nn.Module:
    torch.manual_seed(0)
    small = {"channels": 16, "hidden": 8, "depth": 1}
    detector: nn.Module = make_decoder(kind, taps, CLASSES, **known_options(kind, small), **values)
    return detector


def targets_of(oriented: bool, *objects: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    targets = []
    for count in objects:
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + 6 + 10 * torch.rand(count, 2)], dim=1)
        targets.append(
            {
                "boxes": as_oriented(boxes) if oriented else boxes,
                "labels": torch.randint(CLASSES, (count,), generator=generator),
                "difficult": torch.zeros(count, dtype=torch.bool),
            }
        )
    return targets


every_detector = pytest.mark.parametrize("kind", DETECTORS)


@every_detector
@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize("stem", [False, True])
def test_losses_are_finite_and_their_gradients_reach_every_parameter(
    kind: str, name: str, stem: bool
) -> None:
    taps = taps_of(name, stem)
    detector = detector_of(kind, taps)
    assert isinstance(detector, Detector)
    features = features_of(taps)
    for x in features.maps:
        x.requires_grad_()
    outputs = detector(features, SIZE, targets_of(detector.oriented, 3, 2))
    assert not outputs.detections
    loss = torch.stack(list(outputs.losses.values())).sum()
    assert loss.isfinite()
    loss.backward()
    for parameter_name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    for tap, x in zip(taps, features.maps, strict=True):
        assert x.grad is not None and x.grad.abs().sum() > 0, tap.name


@every_detector
def test_images_without_objects_train_the_background(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    losses = detector(features_of(taps), SIZE, targets_of(detector.oriented, 0, 0)).losses
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["class"] > 0 and losses["box"] == 0


@every_detector
def test_class_loss_without_objects_is_not_larger_than_with_one(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    # Without the prior bias, background points have a large loss.
    for name, parameter in detector.named_parameters():
        if name.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)
    one, none = (
        detector(features_of(taps), SIZE, targets_of(detector.oriented, count, count)).losses
        for count in (1, 0)
    )
    assert none["class"] < 1.2 * one["class"]


@every_detector
def test_difficult_objects_add_no_box_loss(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    targets = targets_of(detector.oriented, 1)
    targets[0]["difficult"][:] = True
    losses = detector(features_of(taps, batch=1), SIZE, targets).losses
    assert losses["box"] == 0 and all(loss.isfinite() for loss in losses.values())


@every_detector
def test_evaluation_returns_detections_and_losses_if_targets_are_given(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps, score_threshold=0.0, max_detections=7).eval()
    features = features_of(taps)
    outputs = detector(features, SIZE, None)
    assert not outputs.losses and len(outputs.detections) == 2
    for detections in outputs.detections:
        assert len(detections.scores) == 7 and (detections.scores.diff() <= 0).all()
        assert detections.boxes.shape[1] == (5 if detector.oriented else 4)
    both = detector(features, SIZE, targets_of(detector.oriented, 2, 0))
    assert both.losses and torch.equal(both.detections[0].boxes, outputs.detections[0].boxes)
    assert len(outputs[1:2].detections) == 1 and not outputs[1:2].losses


@every_detector
def test_coarsest_map_of_one_pixel_is_processed(kind: str) -> None:
    taps = [Tap("a", 8, 16.0), Tap("b", 8, 32.0)]
    features = FeatureMaps((torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)), (32, 32))
    outputs = detector_of(kind, taps, score_threshold=0.0).eval()(features, (32, 32), None)
    assert len(outputs.detections[0].scores)


@every_detector
def test_training_step_runs_on_fake_tensors(kind: str) -> None:
    taps = taps_of("pyramid")
    with FakeTensorMode():
        detector = detector_of(kind, taps)
        maps = tuple(
            torch.zeros(2, t.channels, int(64 / t.stride), int(96 / t.stride)) for t in taps
        )
        count, columns = 4, 5 if detector.oriented else 4
        target = {
            "boxes": torch.zeros(count, columns),
            "labels": torch.zeros(count, dtype=torch.int64),
            "difficult": torch.zeros(count, dtype=torch.bool),
        }
        outputs = detector(FeatureMaps(maps, (64, 96)), SIZE, [target, target])
        torch.stack(list(outputs.losses.values())).sum().backward()


@every_detector
def test_options_and_detector_agree_on_oriented_boxes(kind: str) -> None:
    detector: Any = detector_of(kind, taps_of("plain"))
    assert detector.oriented == DECODERS[kind].load_options().oriented


def test_min_stride_selects_the_finest_level() -> None:
    def strides(name: str, min_stride: float, stem: bool = False) -> tuple[float, ...]:
        detector: Any = detector_of("fcos", taps_of(name, stem), min_stride=min_stride)
        return tuple(detector.levels.strides)

    assert strides("pyramid", 4) == (4, 8, 16, 32, 64)
    assert strides("pyramid", 8) == (8, 16, 32, 64, 128)
    assert strides("pyramid", 1) == (4, 8, 16, 32, 64)
    assert strides("pyramid", 1, stem=True)[:3] == (1, 2, 4)
    assert strides("patch of 4", 2) == (2, 4, 8, 16, 32)
    assert strides("patch of 14", 4) == (3.5, 7, 14, 28, 56)


# ---------------------------------------------------------------- FCOS grid points
def grid(strides: Sequence[float] = (4, 8, 16), size: int = 64) -> FcosGrid:
    return FcosGrid.from_maps(
        [torch.zeros(1, 1, int(size / s), int(size / s)) for s in strides], strides
    )


def boxes_truth(boxes: Tensor) -> GroundTruth:
    count = len(boxes)
    return GroundTruth(
        boxes, torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)
    )


@pytest.mark.parametrize("side", [0.5, 1.5, 3, 7, 20, 60, 200])
@pytest.mark.parametrize("turn", [0.0, 0.4, 1.3])
def test_every_object_is_assigned_a_grid_point(side: float, turn: float) -> None:
    box = torch.tensor([[30.3, 32.9, side, side / 2, turn]])
    match, centreness = assign_targets(boxes_truth(box), grid())
    assert (match == 0).any() and ((match == 0) == (centreness > 0)).any()
    assert (centreness[match == BACKGROUND] == 0).all() and (centreness <= 1).all()
    assert (centreness[match == 0] > 0).any()


def test_objects_are_assigned_to_one_level_and_smaller_objects_have_priority() -> None:
    points = grid()
    small, large = [30.0, 30.0, 9.0, 9.0, 0.0], [30.0, 30.0, 40.0, 30.0, 0.0]
    match, _ = assign_targets(boxes_truth(torch.tensor([small, large])), points)
    assert set(points.stride[match == 0].tolist()) == {4.0}
    assert set(points.stride[match >= 0].tolist()) == {4.0}
    match, _ = assign_targets(boxes_truth(torch.tensor([[30.0, 30.0, 100.0, 30.0, 0.0]])), points)
    assert set(points.stride[match == 0].tolist()) == {8.0}


def test_assignment_of_horizontal_boxes_equals_that_of_their_oriented_form() -> None:
    box = torch.tensor([[10.0, 12.0, 40.0, 33.0]])
    one, centre = assign_targets(boxes_truth(box), grid())
    other, turned = assign_targets(boxes_truth(as_oriented(box)), grid())
    assert torch.equal(one, other)
    torch.testing.assert_close(centre, turned)


# ---------------------------------------------------------------- detections
def test_non_finite_predictions_are_an_error() -> None:
    postprocess = Postprocessor(0.1, 0.5, 10)
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0], [math.nan, 1.0, 5.0, 5.0]])
    with raises("boxes-not-finite"):
        postprocess(boxes, torch.ones(2, 1), (32, 32))
    with raises("boxes-not-finite"):
        postprocess(boxes[:1], torch.full((1, 1), math.nan), (32, 32))


def test_detections_are_not_clipped_and_have_their_centre_in_the_image() -> None:
    boxes = torch.tensor([[-4.0, 1.0, 6.0, 5.0], [-8.0, 1.0, 6.0, 5.0]])
    detections = Postprocessor(0.1, 0.5, 10)(boxes, torch.ones(2, 1), (32, 32))
    assert detections.boxes.tolist() == [[-4.0, 1.0, 6.0, 5.0]]


@pytest.mark.parametrize("angle", [-1.2, -0.6, 0.1, 0.7, 1.5])
def test_gradient_from_a_square_points_to_the_angle(angle: float) -> None:
    """Otherwise sides and angle would block each other for hundreds of steps."""
    detector: Any = detector_of("rotated_fcos", taps_of("plain"))
    for parameter in detector.box.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(detector.box.bias[3:4], 0.01)  # every point predicts nearly a square
    truth = {
        "boxes": torch.tensor([[40.0, 30.0, 30.0, 10.0, angle]]),
        "labels": torch.tensor([0]),
        "difficult": torch.tensor([False]),
    }
    detector(features_of(taps_of("plain"), 1), SIZE, [truth]).losses["box"].backward()
    step = -detector.box.bias.grad[3:5]
    expected = torch.tensor([math.cos(2 * angle), math.sin(2 * angle)])
    assert F.cosine_similarity(step, expected, dim=0) > 0.99
