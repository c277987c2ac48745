"""Every detector overfits a few images, with and without objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geotune.boxes.oriented import hull
from geotune.methods.core.stem import Stem
from geotune.types import FeatureMaps
from helpers.components import DETECTORS, known_options, make_decoder, make_task

SIDE = 64
SMALL = {"channels": 32, "depth": 1, "hidden": 64, "num_levels": 3, "anchor_size": 3.0}
STEPS = 120


class Network(nn.Module):
    """A detector on a small convolutional stem."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = Stem(bands=3, width=8)
        self.detector = make_decoder(kind, self.stem.taps, 1, **known_options(kind, SMALL))

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Any:
        maps = FeatureMaps(self.stem(images), (SIDE, SIDE))
        return self.detector(maps, (SIDE, SIDE), targets)


def make_batch(oriented: bool, *counts: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Noise images `(B, 3, 64, 64)` with the given numbers of bright bars, and their targets."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    images = rng.normal(0, 0.3, (len(counts), 3, SIDE, SIDE))
    targets = []
    for image, count in zip(images, counts, strict=True):
        boxes = np.zeros((count, 5))
        for i in range(count):
            centre = 16 + 32 * np.array([i % 2, i // 2]) + rng.uniform(-4, 4, 2)
            angle = rng.uniform(-1.5, 1.5)
            w, h = boxes[i, 2:4] = rng.uniform(14, 20), rng.uniform(7, 10)
            boxes[i, :2], boxes[i, 4] = centre, angle
            x, y = columns - centre[0], rows - centre[1]
            along, across = (
                x * np.cos(angle) + y * np.sin(angle),
                y * np.cos(angle) - x * np.sin(angle),
            )
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
def test_detector_overfits_a_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # most of the time goes to the second stage's regions, of which small images need few
    monkeypatch.setattr("geotune.detectors.two_stage.ROI_BATCH_SIZE", 64)
    network = Network(kind)
    images, targets = make_batch(bool(network.detector.oriented), 3, 4, 0, 0)
    task = make_task(
        "detect", classes=["bar"], boxes="oriented" if network.detector.oriented else "horizontal"
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        task.loss(network(images, targets), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    network.eval()
    with torch.no_grad():
        outputs = network(images, targets)
        empty = network(images[2:], targets[2:])
    metrics = task.metrics()
    metrics.update(outputs, targets)
    assert metrics.compute()["ap50"] > 0.9
    assert metrics.details()["counts"]["bar"]["missed"] == 0
    assert task.loss(outputs, targets) < 1
    assert empty.losses["class"] < 0.1 * empty.counts(targets[2:])["class"]
