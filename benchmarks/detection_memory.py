"""Peak memory of training Faster R-CNN on Swin-B, relative to full fine-tuning.

    python benchmarks/detection_memory.py    # on fake tensors, on a CPU

Windows of 512 pixels, batch 4, float32, 32 objects per window; estimated like `geotune plan`. The
lower bound is `frozen`: no method that runs the backbone can need less. Results are written to
`benchmarks/results/detection_memory.json`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geotune.api.planning import Planner
from geotune.config import Recipe, parse_recipe
from geotune.tasks.detect import EXAMPLE_OBJECTS

RESULTS = Path(__file__).parent / "results" / "detection_memory.json"
BANDS = ["red", "green", "blue"]
METHODS = ("full", "lora", "frozen", "est")
PIXELS, BATCH = 512, 4
TARGET = 0.40
"""Maximum for `est`, relative to `full`."""


def recipe_for(method: str) -> Recipe:
    """Faster R-CNN with default options and one method."""
    return parse_recipe(
        {
            "backbone": {
                "name": "timm/swin_base_patch4_window7_224",
                "pretrained": False,
                "bands": BANDS,
            },
            "method": {"kind": method},
            "decoder": {"kind": "faster_rcnn"},
            "task": {"kind": "detect", "classes": ["object"]},
            "data": {
                "kind": "scenes",
                "scenes": "scenes/*.tif",
                "labels": "labels/{stem}.geojson",
                "window": PIXELS,
                "split": {"kind": "random"},
            },
            "train": {"batch_size": BATCH, "accelerator": "gpu", "precision": "32-true"},
        }
    )


def main() -> int:
    """Estimate every method; returns 0 if `est` meets its target."""
    planner = Planner(recipe_for("full"), tuple(BANDS))
    rows: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        estimate, _ = planner.predict(recipe_for(method))
        rows[method] = {
            "peak_bytes": estimate.gpu.total,
            "parts": estimate.gpu.by_category,
            "operations": estimate.flops,
            "computed": estimate.computed,
        }
        rows[method]["of_full"] = round(estimate.gpu.total / rows["full"]["peak_bytes"], 4)
        print(f"{method}: {estimate.gpu.total / 1e9:.2f} GB, {rows[method]['of_full']:.1%}")
    record = {
        "what": "estimated peak bytes of live tensors of a training step on a GPU",
        "model": "Faster R-CNN on Swin-B",
        "pixels": PIXELS,
        "batch": BATCH,
        "objects_a_window": EXAMPLE_OBJECTS,
        "target_est_of_full": TARGET,
        "floor": "frozen",
        "methods": rows,
        "date": datetime.date.today().isoformat(),
        "machine": {"system": platform.system(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "timm")},
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    met = rows["est"]["of_full"] < TARGET
    if not met:
        print(f"missed: est needs {rows['est']['of_full']:.1%} of full, not {TARGET:.0%}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
