"""One contract for every detector: over tap lists, with and without objects, on fake tensors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geotune.boxes.oriented import as_oriented
from geotune.config import detector_options as sections
from geotune.detectors.assigner import BACKGROUND, GroundTruth
from geotune.detectors.base import Detector
from geotune.detectors.fcos import FcosGrid, assign_targets
from geotune.detectors.postprocess import Postprocessor
from geotune.detectors.registry import DETECTORS
from geotune.errors import GeotuneError
from geotune.types import FeatureMaps, Tap

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
    taken = inspect.signature(DETECTORS[kind]).parameters
    return DETECTORS[kind](
        taps, CLASSES, **{k: v for k, v in small.items() if k in taken}, **values
    )


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
def test_images_without_objects_are_learnt_as_background(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    losses = detector(features_of(taps), SIZE, targets_of(detector.oriented, 0, 0)).losses
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["class"] > 0 and losses["box"] == 0


@every_detector
def test_a_batch_without_objects_weighs_no_more_than_one_with_an_object(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    # As little is known as can be: at first nothing is wrong with places without objects.
    for name, parameter in detector.named_parameters():
        if name.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)
    one, none = (
        detector(features_of(taps), SIZE, targets_of(detector.oriented, count, count)).losses
        for count in (1, 0)
    )
    assert none["class"] < 1.2 * one["class"]


@every_detector
def test_difficult_objects_are_neither_found_nor_background(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps)
    targets = targets_of(detector.oriented, 1)
    targets[0]["difficult"][:] = True
    losses = detector(features_of(taps, batch=1), SIZE, targets).losses
    assert losses["box"] == 0 and all(loss.isfinite() for loss in losses.values())


@every_detector
def test_in_evaluation_there_are_detections_and_losses_where_they_are_asked_for(kind: str) -> None:
    taps = taps_of("pyramid")
    detector = detector_of(kind, taps, score_threshold=0.0, max_detections=7).eval()
    features = features_of(taps)
    outputs = detector(features, SIZE, None)
    assert not outputs.losses and len(outputs.detections) == 2
    for found in outputs.detections:
        assert len(found.scores) == 7 and (found.scores.diff() <= 0).all()
        assert found.boxes.shape[1] == (5 if detector.oriented else 4)
    both = detector(features, SIZE, targets_of(detector.oriented, 2, 0))
    assert both.losses and torch.equal(both.detections[0].boxes, outputs.detections[0].boxes)
    assert len(outputs[1:2].detections) == 1 and not outputs[1:2].losses


@every_detector
def test_one_image_whose_coarsest_map_is_a_single_pixel_is_looked_at(kind: str) -> None:
    taps = [Tap("a", 8, 16.0), Tap("b", 8, 32.0)]
    features = FeatureMaps((torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)), (32, 32))
    outputs = detector_of(kind, taps, score_threshold=0.0).eval()(features, (32, 32), None)
    assert len(outputs.detections[0].scores)


@every_detector
def test_a_step_needs_no_look_at_values(kind: str) -> None:
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
def test_the_section_has_the_constructors_defaults(kind: str) -> None:
    taken = inspect.signature(DETECTORS[kind]).parameters
    section = next(
        s
        for s in vars(sections).values()
        if isinstance(s, type)
        and issubclass(s, sections.Detector)
        and s.model_fields["kind"].default == kind
    )
    for name, field in section.model_fields.items():
        if name != "kind":
            assert taken[name].default == field.default, name
    assert section.oriented == detector_of(kind, taps_of("plain")).oriented


def test_the_finest_level_is_what_is_asked_for_or_the_nearest_there_is() -> None:
    def strides(name: str, finest: float, stem: bool = False) -> tuple[float, ...]:
        detector: Any = detector_of("fcos", taps_of(name, stem), min_stride=finest)
        return tuple(detector.levels.strides)

    assert strides("pyramid", 4) == (4, 8, 16, 32, 64)
    assert strides("pyramid", 8) == (8, 16, 32, 64, 128)
    assert strides("pyramid", 1) == (4, 8, 16, 32, 64)
    assert strides("pyramid", 1, stem_width=True)[:3] == (1, 2, 4)
    assert strides("patch of 4", 2) == (2, 4, 8, 16, 32)
    assert strides("patch of 14", 4) == (3.5, 7, 14, 28, 56)


# ---------------------------------------------------------------- places of FCOS
def grid(strides: Sequence[float] = (4, 8, 16), size: int = 64) -> FcosGrid:
    return FcosGrid.of([torch.zeros(1, 1, int(size / s), int(size / s)) for s in strides], strides)


def boxes_truth(boxes: Tensor) -> GroundTruth:
    count = len(boxes)
    return GroundTruth(
        boxes, torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)
    )


@pytest.mark.parametrize("side", [0.5, 1.5, 3, 7, 20, 60, 200])
@pytest.mark.parametrize("turn", [0.0, 0.4, 1.3])
def test_every_object_has_a_place_however_small_it_is(side: float, turn: float) -> None:
    box = torch.tensor([[30.3, 32.9, side, side / 2, turn]])
    match, centreness = assign_targets(boxes_truth(box), grid())
    assert (match == 0).any() and ((match == 0) == (centreness > 0)).any()
    assert (centreness[match == BACKGROUND] == 0).all() and (centreness <= 1).all()
    assert (centreness[match == 0] > 0).any()


def test_an_object_is_on_one_level_and_the_smaller_of_two_has_a_place() -> None:
    places = grid()
    small, large = [30.0, 30.0, 9.0, 9.0, 0.0], [30.0, 30.0, 40.0, 30.0, 0.0]
    match, _ = assign_targets(boxes_truth(torch.tensor([small, large])), places)
    assert set(places.stride[match == 0].tolist()) == {4.0}
    assert set(places.stride[match >= 0].tolist()) == {4.0}
    match, _ = assign_targets(boxes_truth(torch.tensor([[30.0, 30.0, 100.0, 30.0, 0.0]])), places)
    assert set(places.stride[match == 0].tolist()) == {8.0}


def test_horizontal_boxes_have_the_places_of_the_same_boxes_as_oriented_ones() -> None:
    box = torch.tensor([[10.0, 12.0, 40.0, 33.0]])
    one, centre = assign_targets(boxes_truth(box), grid())
    other, turned = assign_targets(boxes_truth(as_oriented(box)), grid())
    assert torch.equal(one, other)
    torch.testing.assert_close(centre, turned)


# ---------------------------------------------------------------- detections
def test_what_is_not_finite_is_said() -> None:
    choice = Postprocessor(0.1, 0.5, 10)
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0], [math.nan, 1.0, 5.0, 5.0]])
    with pytest.raises(GeotuneError, match="not finite"):
        choice.among(boxes, torch.ones(2, 1), (32, 32))
    with pytest.raises(GeotuneError, match="not finite"):
        choice.among(boxes[:1], torch.full((1, 1), math.nan), (32, 32))


def test_detections_are_whole_and_have_their_middle_in_the_image() -> None:
    boxes = torch.tensor([[-4.0, 1.0, 6.0, 5.0], [-8.0, 1.0, 6.0, 5.0]])
    found = Postprocessor(0.1, 0.5, 10).among(boxes, torch.ones(2, 1), (32, 32))
    assert found.boxes.tolist() == [[-4.0, 1.0, 6.0, 5.0]]


@pytest.mark.parametrize("angle", [-1.2, -0.6, 0.1, 0.7, 1.5])
def test_from_a_square_the_angle_is_learnt_at_once(angle: float) -> None:
    """Else sides wait for the angle and the angle for the sides, for hundreds of steps."""
    detector: Any = detector_of("rotated_fcos", taps_of("plain"))
    for parameter in detector.box.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(detector.box.bias[3:4], 0.01)  # every place says nearly a square
    truth = {
        "boxes": torch.tensor([[40.0, 30.0, 30.0, 10.0, angle]]),
        "labels": torch.tensor([0]),
        "difficult": torch.tensor([False]),
    }
    detector(features_of(taps_of("plain"), 1), SIZE, [truth]).losses["box"].backward()
    way = -detector.box.bias.grad[3:5]
    wanted = torch.tensor([math.cos(2 * angle), math.sin(2 * angle)])
    assert F.cosine_similarity(way, wanted, dim=0) > 0.99
