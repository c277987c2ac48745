"""Time of a training step and of a prediction with channels last, relative to channels first.

    python benchmarks/memory_format.py      # about two minutes on one core

Networks have random weights and a UNet; images are 8 of 128 x 128 pixels with 3 bands, on one
thread of a CPU. A step is forward, loss and backward without the optimizer, whose work is the same.
Both orders take turns; the CPU time of the fastest of several rounds counts. Written to
`benchmarks/results/memory_format.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from geotune.config import parse_recipe
from geotune.factory.build_model import build_training
from geotune.model import Model
from geotune.types import BandStatistics
from geotune.utils.precision import autocast, bf16_instructions

RESULTS = Path(__file__).parent / "results" / "memory_format.json"
BANDS = ["red", "green", "nir"]
CLASSES = ["background", "field", "forest"]
NETWORKS = (
    "timm/resnet18",
    "timm/mobilenetv2_100",
    "timm/convnext_tiny",
    "timm/vit_small_patch16_224",
)
METHODS = ("full", "est")
PRECISIONS = ("32-true", "bf16-mixed")
SIDE, BATCH = 128, 8


def build(network: str, method: str) -> Model:
    """A network with random weights."""
    torch.manual_seed(0)
    recipe = parse_recipe(
        {
            "backbone": {"name": network, "pretrained": False, "bands": BANDS},
            "method": {"kind": method},
            "decoder": {"kind": "unet", "channels": [64, 32, 16, 16]},
            "task": {"kind": "segment", "classes": CLASSES},
            "data": {
                "kind": "scenes", "scenes": "x/*.tif", "labels": "{stem}.tif", "window": SIDE,
                "split": {"kind": "random"},
            },
        }
    )  # fmt: skip
    statistics = BandStatistics(tuple(BANDS), (2000.0,) * 3, (1000.0,) * 3, 9)
    model: Model = build_training(recipe, statistics).model
    return model


def seconds(work: Callable[[], None]) -> float:
    """CPU seconds of the work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(model: Model, precision: str, rounds: int) -> dict[str, Any]:
    """CPU seconds of a step and of a prediction in both orders, and their ratios."""
    images = torch.rand(BATCH, len(BANDS), SIDE, SIDE) * 3000
    masks = torch.randint(0, len(CLASSES), (BATCH, SIDE, SIDE))

    def step() -> None:
        model.train()
        with autocast(images.device, precision):
            outputs = model(images)
        cross_entropy(outputs.float(), masks).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def predict() -> None:
        model.eval()
        with torch.inference_mode(), autocast(images.device, precision):
            model(images)

    found: dict[str, Any] = {}
    for name, work in (("step", step), ("prediction", predict)):
        times: dict[str, list[float]] = {"first": [], "last": []}
        for number in range(rounds + 1):
            for order, each in times.items():
                if order == "last":
                    taken = seconds(work)
                else:
                    with patch("geotune.model.for_convolutions", _unchanged):
                        taken = seconds(work)
                if number:  # the first round compiles kernels
                    each.append(taken)
        first, last = min(times["first"]), min(times["last"])
        found |= {
            f"{name}_channels_first": round(first, 4),
            f"{name}_channels_last": round(last, 4),
            f"{name}_ratio": round(last / first, 3),
        }
    return found


def _unchanged(images: Tensor) -> Tensor:
    return images


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for network in NETWORKS:
        for method in METHODS:
            model = build(network, method)
            for precision in PRECISIONS:
                row = measure(model, precision, rounds)
                rows.append({"network": network, "method": method, "precision": precision, **row})
                print(json.dumps(rows[-1]), flush=True)
    record = {
        "what": "CPU seconds with channels last, relative to channels first",
        "rows": rows,
        "versions": {name: version(name) for name in ("torch", "timm")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {bf16_instructions()}",
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
