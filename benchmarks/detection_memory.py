"""Peak memory of training Faster R-CNN on Swin-B: what methods take of `full`.

    python benchmarks/detection_memory.py    # on fake tensors, on a CPU

Windows of 512 pixels, batch 4, float32, 32 objects a window; predicted as `geotune plan` does. The
floor is `frozen`: no method that keeps the backbone can take less. The figures go to
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
"""Of `full`, what `est` may take."""


def recipe_for(method: str) -> Recipe:
    """Faster R-CNN as it is by default, with one method."""
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
    """Predict every method, and say whether `est` keeps its promise."""
    planner = Planner(recipe_for("full"), tuple(BANDS))
    rows: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        prediction, _ = planner.predict(recipe_for(method))
        rows[method] = {
            "peak_bytes": prediction.gpu.total,
            "parts": prediction.gpu.by_category,
            "operations": prediction.flops,
            "computed": prediction.computed,
        }
        rows[method]["of_full"] = round(prediction.gpu.total / rows["full"]["peak_bytes"], 4)
        print(f"{method}: {prediction.gpu.total / 1e9:.2f} GB, {rows[method]['of_full']:.1%}")
    record = {
        "what": "predicted peak bytes of live tensors of a training step on a GPU",
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
    kept = rows["est"]["of_full"] < TARGET
    if not kept:
        print(f"missed: est takes {rows['est']['of_full']:.1%} of full, not {TARGET:.0%}")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
