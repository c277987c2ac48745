"""Averages over models and orientations, and fusion of their objects."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from geotune.boxes.structures import Detections
from geotune.boxes.transforms import rotate90_flip
from geotune.inference.ensemble import (
    ORIENTATIONS,
    Ensemble,
    averaged,
    binary_entropy,
    entropy,
    fuse,
    fused,
    opposite,
    turn,
    turn_back,
)

EIGHT = ORIENTATIONS["d4"]


@pytest.mark.parametrize("orientation", EIGHT)
def test_turns_of_images_and_boxes_are_inverted(orientation: int) -> None:
    image = torch.arange(12.0).reshape(1, 3, 4)
    turned = turn(image, orientation)
    assert torch.equal(turn_back(turned, orientation), image)
    # the pixel at row 0, column 3 as a box, in the turned image and back
    box = torch.tensor([[3.0, 0.0, 4.0, 1.0]])
    moved = rotate90_flip(box, orientation, (3, 4))
    column, row = moved[0, :2].int().tolist()
    assert turned[0, row, column] == image[0, 0, 3]
    shape = (4, 3) if orientation % 2 else (3, 4)
    assert torch.equal(rotate90_flip(moved, opposite(orientation), shape), box)


def test_the_eight_orientations_differ() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    assert len({tuple(turn(image, k).flatten().tolist()) for k in EIGHT}) == 8


def weighted_by_column(images: Tensor) -> Tensor:
    """A model that is not equivariant: it multiplies by the column, from 0."""
    return images * torch.arange(images.shape[-1])


def test_mean_over_orientations() -> None:
    """A column counts 0, 1, 2 or, mirrored, 2, 1, 0: 1 in the mean; turned, so does a row."""
    images = torch.rand(2, 1, 3, 3)
    for orientations in ("flips", "d4"):
        model = averaged(Ensemble([weighted_by_column], ORIENTATIONS[orientations]))
        torch.testing.assert_close(model(images), images)
    alone = averaged(Ensemble([weighted_by_column]))
    assert torch.equal(alone(images), weighted_by_column(images))


def test_deviation_of_values() -> None:
    models = [lambda x: x, lambda x: 3 * x]
    images = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    outputs = averaged(Ensemble(models), "deviation")(images)
    assert outputs.flatten().tolist() == [2, 4, 1, 2]  # the means, then the deviations


def test_entropy() -> None:
    shares = torch.tensor([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    expected = [0, 1, math.log(2) / math.log(3)]
    assert entropy(shares).flatten().tolist() == pytest.approx(expected)
    labels = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 1.0]])
    assert binary_entropy(labels).flatten().tolist() == pytest.approx([0, 1, 0.5])


def test_mean_entropy_of_the_members() -> None:
    """Two members, each certain of another class: only their mean is uncertain."""
    first = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    members = Ensemble([lambda _: first, lambda _: first.flip(1)])
    outputs = averaged(members, "entropy")(torch.zeros(1, 1, 1, 1))
    assert outputs.flatten().tolist() == [0.5, 0.5, 0]


def test_known_inputs_reach_every_member() -> None:
    seen = []

    def model(images: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return images

    averaged(Ensemble([model, model], EIGHT))(torch.zeros(1, 1, 2, 2), time=torch.ones(1))
    assert len(seen) == 16


# ---------------------------------------------------------------- objects
def brightest(images: Tensor) -> list[Detections]:
    """Detects the brightest pixel of each image as a box of one pixel."""
    found = []
    for image in images:
        row, column = divmod(int(image[0].argmax()), image.shape[-1])
        box = [float(column), float(row), column + 1.0, row + 1.0]
        found.append(Detections(torch.tensor([box]), torch.tensor([0.8]), torch.tensor([1])))
    return found


def test_objects_of_turned_images_are_turned_back() -> None:
    images = torch.zeros(2, 1, 5, 5)
    images[0, 0, 1, 3] = images[1, 0, 4, 0] = 1
    for each, box in zip(
        fused(Ensemble([brightest], EIGHT))(images), ([3, 1, 4, 2], [0, 4, 1, 5]), strict=True
    ):
        assert each.boxes.tolist() == [box] and each.classes.tolist() == [1]
        assert each.scores.tolist() == pytest.approx([0.8])


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(classes)
    )


def test_scores_count_members_that_miss_an_object() -> None:
    first = detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.5], [0, 0])
    second = detections([[1, 0, 11, 10]], [0.3], [0])
    objects = fuse([first, second])
    assert objects.scores.tolist() == pytest.approx([0.6, 0.25])
    # weights 0.9 and 0.3: a quarter of the way to the second
    torch.testing.assert_close(
        objects.boxes, torch.tensor([[0.25, 0, 10.25, 10], [50, 50, 60, 60]])
    )


def test_members_and_classes_are_kept_apart() -> None:
    """One member's two overlapping boxes are two objects, and so are boxes of two classes."""
    first = detections([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 0])
    second = detections([[0, 0, 10, 10]], [0.7], [1])
    objects = fuse([first, second])
    assert objects.classes.tolist() == [0, 0, 1]
    assert objects.scores.tolist() == pytest.approx([0.45, 0.4, 0.35])


def test_best_object_comes_first() -> None:
    """The highest score of a member is not the highest mean."""
    first = detections([[0, 0, 4, 4], [20, 0, 24, 4]], [0.9, 0.6], [0, 0])
    second = detections([[20, 0, 24, 4]], [0.6], [0])
    assert fuse([first, second]).scores.tolist() == pytest.approx([0.6, 0.45])


def test_oriented_boxes_are_averaged_across_the_ends_of_the_angle() -> None:
    """Almost upright boxes have angles near both pi/2 and -pi/2."""
    angle = math.pi / 2 - 0.1
    first = detections([[10, 10, 20, 5, angle]], [0.5], [0])
    second = detections([[10, 10, 20, 5, -angle]], [0.5], [0])
    [box] = fuse([first, second]).boxes.tolist()
    assert box[:4] == pytest.approx([10, 10, 20, 5])
    assert abs(box[4]) == pytest.approx(math.pi / 2)


def test_nearly_square_boxes_with_exchanged_sides_are_averaged() -> None:
    first = detections([[10, 10, 10, 9, 0.0]], [0.5], [0])
    second = detections([[10, 10, 10, 9, math.pi / 2 - 0.01]], [0.5], [0])
    [box] = fuse([first, second]).boxes.tolist()
    assert box[:4] == pytest.approx([10, 10, 9.5, 9.5], abs=1e-4)
    assert abs(box[4]) < 0.01


def test_nothing_detected() -> None:
    nothing = Detections(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(fuse([nothing, nothing]).scores) == 0
