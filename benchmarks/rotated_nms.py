"""Seconds of suppressing oriented boxes on one CPU core, and what an IoU near 1 comes to.

    OMP_NUM_THREADS=1 python benchmarks/rotated_nms.py

Boxes lie as they do in scenes (few overlap), as in a detector's raw output (50 or 500 tries at each
object), all around one object, and without any order, at two thresholds. Of each the fastest of
several runs counts, in wall time and in CPU time of the process: what else runs on the machine
lengthens the first. `memory` suppresses a million boxes of a scene in a process of its own.

`nearly_equal` holds the IoU of boxes and their copies, moved by about a ten-thousandth of a pixel
and as much of a radian, by geotune, by torchvision's operator in float32, and by shapely's areas.
The figures go to `benchmarks/results/rotated_nms.json`.
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
    """Ships of 10 to 60 by 5 to 15 pixels, one in 40 x 40 pixels on the average."""
    side = 40 * math.sqrt(n)
    columns = [
        rng.uniform(0, side, (n, 2)),
        rng.uniform(10, 60, (n, 1)),
        rng.uniform(5, 15, (n, 1)),
    ]
    return canonical(np.hstack([*columns, rng.uniform(-2, 2, (n, 1))]))


def raw(n: int, rng: np.random.Generator, tries: int) -> Boxes:
    """So many tries at each object: two pixels, a tenth of the size and a tenth of a radian off."""
    objects = scene(max(1, n // tries), rng)
    boxes = objects[rng.integers(len(objects), size=n)]
    boxes[:, 2:4] *= np.exp(rng.normal(0, 0.1, (n, 2)))
    return canonical(boxes + rng.normal(0, 1, (n, 5)) * [2, 2, 0, 0, 0.1])


def heap(n: int, rng: np.random.Generator) -> Boxes:
    """Boxes of any size and angle in 300 x 300 pixels, so that each overlaps thousands."""
    columns = [rng.uniform(0, 300, (n, 2)), rng.uniform(1, 100, (n, 2)), rng.uniform(-2, 2, (n, 1))]
    return canonical(np.hstack(columns))


CASES: dict[str, Callable[[int, np.random.Generator], Boxes]] = {
    "scene": scene,
    "50 tries an object": lambda n, rng: raw(n, rng, 50),
    "500 tries an object": lambda n, rng: raw(n, rng, 500),
    "one object": lambda n, rng: raw(n, rng, n),
    "heap": heap,
}


def timed(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> dict[str, Any]:
    """The fastest of some runs."""
    walls, cpus, kept = [], [], 0
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        kept = len(nms(boxes, scores, threshold))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"kept": kept, "wall_seconds": min(walls), "cpu_seconds": min(cpus)}


def speed() -> list[dict[str, Any]]:
    """Every case at every number of boxes and threshold."""
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
    """A million boxes of a scene in this process."""
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
    """Highest resident memory of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def nearly_equal() -> dict[str, Any]:
    """Boxes of 2 to 60 pixels against copies of themselves that hardly differ."""
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
    found = {"geotune": paired_iou(x, y, each, each).numpy(), "torchvision": np.array(theirs)}
    return {
        "pairs": n,
        "least_true_iou": truth.min(),
        **{
            name: {
                "largest_error": np.abs(ious - truth).max(),
                "pairs_wrong_by_0.01": int((np.abs(ious - truth) > 0.01).sum()),
            }
            for name, ious in found.items()
        },
    }


def matrix() -> dict[str, Any]:
    """CPU seconds of a matrix of 1000 x 1000 IoUs, the fastest of some runs."""
    first, second = (torch.from_numpy(heap(1000, np.random.default_rng(s))) for s in (0, 1))
    degrees = torch.tensor([1, 1, 1, 1, -180 / math.pi])
    x, y = (first * degrees).float(), (second * degrees).float()
    ways: dict[str, Callable[[], object]] = {
        "geotune": lambda: pairwise_iou(first, second),
        "torchvision": lambda: torchvision.ops.box_iou(x, y, fmt="cxcywhr"),
    }
    result = {}
    for name, way in ways.items():
        seconds = []
        for _ in range(RUNS):
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
        result[name] = min(seconds)
    return result


def main() -> int:
    """Measure and write; 0 if every case is within its target in CPU time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    torch.set_num_threads(1)
    if parser.parse_args().memory:
        print(json.dumps(memory()))
        return 0
    rows = speed()
    own = subprocess.run([sys.executable, __file__, "--memory"], check=True, stdout=subprocess.PIPE)
    record = {
        "what": "suppression of oriented boxes on one CPU core",
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
