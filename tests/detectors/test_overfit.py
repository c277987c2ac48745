"""Every detector finds what it was trained on, and is silent where it was told that nothing is."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geotune.boxes.oriented import hull
from geotune.detectors.registry import DETECTORS
from geotune.methods.core.stem import Stem
from geotune.tasks.detect import Detect
from geotune.types import FeatureMaps

SIDE = 64
SMALL = {"channels": 32, "depth": 1, "hidden": 64, "levels": 3, "anchor_size": 3.0}
STEPS = 120


class Network(nn.Module):
    """A detector on a few convolutions with batch norm."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = Stem(bands=3, width=8)
        taken = inspect.signature(DETECTORS[kind]).parameters
        values: dict[str, Any] = {k: v for k, v in SMALL.items() if k in taken}
        self.detector = DETECTORS[kind](self.stem.taps, 1, **values)

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Any:
        maps = FeatureMaps(self.stem(images), (SIDE, SIDE))
        return self.detector(maps, (SIDE, SIDE), targets)


def made(oriented: bool, *counts: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images `(B, 3, 64, 64)` of noise with so many bright bars each, in corners of their own."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    images = rng.normal(0, 0.3, (len(counts), 3, SIDE, SIDE))
    targets = []
    for image, count in zip(images, counts, strict=True):
        boxes = np.zeros((count, 5))
        for i in range(count):
            middle = 16 + 32 * np.array([i % 2, i // 2]) + rng.uniform(-4, 4, 2)
            turn = rng.uniform(-1.5, 1.5)
            w, h = boxes[i, 2:4] = rng.uniform(14, 20), rng.uniform(7, 10)
            boxes[i, :2], boxes[i, 4] = middle, turn
            x, y = columns - middle[0], rows - middle[1]
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            image[:, (abs(along) < w / 2) & (abs(across) < h / 2)] += 2
        objects = torch.from_numpy(boxes).float()
        targets.append(
            {
                "boxes": objects if oriented else hull(objects),
                "labels": torch.zeros(count, dtype=torch.int64),
                "difficult": torch.zeros(count, dtype=torch.bool),
            }
        )
    return torch.from_numpy(images).float(), targets


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_finds_what_it_was_trained_on(kind: str) -> None:
    network = Network(kind)
    images, targets = made(bool(network.detector.oriented), 3, 4, 2, 0, 0, 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        losses = network(images, targets).losses
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    network.eval()
    task = Detect(["bar"], "oriented" if network.detector.oriented else "horizontal")
    with torch.no_grad():
        outputs = network(images, targets)
        nothing = network(images[3:], targets[3:]).losses
    metrics = task.metrics()
    metrics.update(outputs, targets)
    assert metrics.compute()["ap50"] > 0.9
    assert metrics.details()["counts"]["bar"]["missed"] == 0
    assert task.loss(outputs, targets) < 1 and nothing["class"] < 0.1
