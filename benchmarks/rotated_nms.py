"""Speed of NMS for oriented boxes on one CPU core, and accuracy of IoU for nearly equal boxes.

    OMP_NUM_THREADS=1 python benchmarks/rotated_nms.py

Cases: boxes of a scene (few overlaps), raw detector output (50 or 500 detections of each object),
detections of a single object, and random boxes, at two thresholds. The fastest of several runs
counts, in wall time and in CPU time; other processes affect the former. `memory` is the peak for a
million boxes of a scene, in a separate process.

`nearly_equal` compares the IoU of boxes and copies that are moved by about a ten-thousandth of a
pixel and rotated by as much of a radian: geotune and torchvision (float32) against shapely.
Results are written to `benchmarks/results/rotated_nms.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
import torchvision.ops
from numpy.typing import NDArray

from geotune.boxes.iou import paired_iou, pairwise_iou
from geotune.boxes.nms import nms
from geotune.boxes.oriented import canonical
from geotune.boxes.polygons import to_polygons

RESULTS = Path(__file__).parent / "results" / "rotated_nms.json"
TARGETS = {2_000: 0.1, 10_000: 1.5}
THRESHOLDS = (0.1, 0.5)
RUNS = 5
MILLION = 1_000_000
Boxes = NDArray[np.floating[Any]]


def scene(n: int, rng: np.random.Generator) -> Boxes:
    """Ships of 10 to 60 by 5 to 15 pixels, on average one per 40 x 40 pixels."""
    side = 40 * math.sqrt(n)
    columns = [
        rng.uniform(0, side, (n, 2)),
        rng.uniform(10, 60, (n, 1)),
        rng.uniform(5, 15, (n, 1)),
    ]
    return canonical(np.hstack([*columns, rng.uniform(-2, 2, (n, 1))]))


def raw(n: int, rng: np.random.Generator, per_object: int) -> Boxes:
    """Noisy detections of each object: off by 2 pixels, 10 % of the size and 0.1 radians."""
    objects = scene(max(1, n // per_object), rng)
    boxes = objects[rng.integers(len(objects), size=n)]
    boxes[:, 2:4] *= np.exp(rng.normal(0, 0.1, (n, 2)))
    return canonical(boxes + rng.normal(0, 1, (n, 5)) * [2, 2, 0, 0, 0.1])


def random_boxes(n: int, rng: np.random.Generator) -> Boxes:
    """Boxes of any size and angle in 300 x 300 pixels; each overlaps thousands of others."""
    columns = [rng.uniform(0, 300, (n, 2)), rng.uniform(1, 100, (n, 2)), rng.uniform(-2, 2, (n, 1))]
    return canonical(np.hstack(columns))


CASES: dict[str, Callable[[int, np.random.Generator], Boxes]] = {
    "scene": scene,
    "50 per object": lambda n, rng: raw(n, rng, 50),
    "500 per object": lambda n, rng: raw(n, rng, 500),
    "one object": lambda n, rng: raw(n, rng, n),
    "random": random_boxes,
}


def timed(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> dict[str, Any]:
    """Time of the fastest of `RUNS` runs."""
    walls, cpus, kept = [], [], 0
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        kept = len(nms(boxes, scores, threshold))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"kept": kept, "wall_seconds": min(walls), "cpu_seconds": min(cpus)}


def speed() -> list[dict[str, Any]]:
    """Time every case with every number of boxes and threshold."""
    rows = []
    for n, target in TARGETS.items():
        for name, make in CASES.items():
            rng = np.random.default_rng(n)
            boxes = torch.from_numpy(make(n, rng)).float()
            scores = torch.from_numpy(rng.random(n)).float()
            for threshold in THRESHOLDS:
                row = {"boxes": n, "case": name, "threshold": threshold, "target_seconds": target}
                rows.append(row | timed(boxes, scores, threshold))
                print(f"{n:>6} {name:<20} {threshold}: {rows[-1]['wall_seconds']:.3f} s wall, "
                      f"{rows[-1]['cpu_seconds']:.3f} s CPU, {rows[-1]['kept']} kept")  # fmt: skip
    return rows


def memory() -> dict[str, Any]:
    """Peak memory and time of NMS on a million boxes of a scene, in this process."""
    rng = np.random.default_rng(0)
    boxes, scores = torch.from_numpy(scene(MILLION, rng)), torch.from_numpy(rng.random(MILLION))
    before = peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    kept = len(nms(boxes, scores, 0.1))
    return {
        "boxes": MILLION,
        "kept": kept,
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
    }


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def nearly_equal() -> dict[str, Any]:
    """Errors of the IoU of boxes of 2 to 60 pixels and nearly equal copies."""
    n = 10_000
    rng = np.random.default_rng(0)
    columns = [rng.uniform(0, 100, (n, 2)), rng.uniform(2, 60, (n, 2)), rng.uniform(-2, 2, (n, 1))]
    first = canonical(np.hstack(columns))
    second = first + 1e-4 * rng.standard_normal((n, 5)) * [1, 1, 0, 0, 1]
    a, b = to_polygons(first), to_polygons(second)
    shared = shapely.area(shapely.intersection(a, b))
    truth = shared / (shapely.area(a) + shapely.area(b) - shared)
    x, y, each = torch.from_numpy(first), torch.from_numpy(second), torch.arange(n)
    degrees = torch.tensor([1, 1, 1, 1, -180 / math.pi])
    theirs = [
        torchvision.ops.box_iou(p[None], q[None], fmt="cxcywhr").item()
        for p, q in zip((x * degrees).float(), (y * degrees).float(), strict=True)
    ]
    results = {"geotune": paired_iou(x, y, each, each).numpy(), "torchvision": np.array(theirs)}
    return {
        "pairs": n,
        "min_true_iou": truth.min(),
        **{
            name: {
                "largest_error": np.abs(ious - truth).max(),
                "pairs_wrong_by_0.01": int((np.abs(ious - truth) > 0.01).sum()),
            }
            for name, ious in results.items()
        },
    }


def matrix() -> dict[str, Any]:
    """CPU seconds of a 1000 x 1000 IoU matrix, the fastest of `RUNS` runs."""
    first, second = (torch.from_numpy(random_boxes(1000, np.random.default_rng(s))) for s in (0, 1))
    degrees = torch.tensor([1, 1, 1, 1, -180 / math.pi])
    x, y = (first * degrees).float(), (second * degrees).float()
    functions: dict[str, Callable[[], object]] = {
        "geotune": lambda: pairwise_iou(first, second),
        "torchvision": lambda: torchvision.ops.box_iou(x, y, fmt="cxcywhr"),
    }
    result = {}
    for name, function in functions.items():
        seconds = []
        for _ in range(RUNS):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
        result[name] = min(seconds)
    return result


def main() -> int:
    """Measure and write the results; returns 0 if every case meets its target in CPU time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    torch.set_num_threads(1)
    if parser.parse_args().memory:
        print(json.dumps(memory()))
        return 0
    rows = speed()
    own = subprocess.run([sys.executable, __file__, "--memory"], check=True, stdout=subprocess.PIPE)
    record = {
        "what": "NMS of oriented boxes on one CPU core",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": 1,
            "load_average": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "numpy", "shapely")},
        "runs": RUNS,
        "rows": rows,
        "memory": json.loads(own.stdout),
        "iou_matrix_1000x1000_cpu_seconds": matrix(),
        "nearly_equal": nearly_equal(),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({k: record[k] for k in list(record)[-3:]}, indent=2))
    print(f"written: {RESULTS}")
    return int(any(row["cpu_seconds"] > row["target_seconds"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
