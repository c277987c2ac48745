"""Time and peak memory of `geotune check` on 1,000 chips of 256x256 pixels with 6 bands.

Creates the chips and their masks once, then runs the command in separate processes. The page cache
is warm, because the chips were just written or read. Results are written to
`benchmarks/results/check.json`.

    python benchmarks/check.py [--folder FOLDER] [--chips 1000] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin

BANDS = ["B02", "B03", "B04", "B8A", "B11", "B12"]
SIDE = 256
COLUMNS = 40


def make(folder: Path, count: int) -> None:
    """Write adjacent chips of reflectances from 0 to 10,000, with masks of two classes."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / "images" / f"chip_{i:05}.tif"
        if path.is_file():
            continue
        rng = np.random.default_rng(i)
        coarse = rng.normal(1500, 500, (len(BANDS), SIDE // 8, SIDE // 8))
        image = np.kron(coarse, np.ones((8, 8))) + rng.normal(0, 60, (len(BANDS), SIDE, SIDE))
        row, col = divmod(i, COLUMNS)
        transform = from_origin(500_000 + col * SIDE * 30, 5_000_000 - row * SIDE * 30, 30, 30)
        common = {"driver": "GTiff", "height": SIDE, "width": SIDE, "crs": "EPSG:32633"}
        with rasterio.open(
            path,
            "w",
            count=len(BANDS),
            dtype="uint16",
            transform=transform,
            compress="deflate",
            **common,
        ) as file:
            file.write(np.clip(image, 1, 10_000).astype("uint16"))
            file.descriptions = BANDS
        with rasterio.open(
            folder / "masks" / path.name,
            "w",
            count=1,
            dtype="uint8",
            transform=transform,
            compress="deflate",
            **common,
        ) as file:
            file.write((image[3] > 1800).astype("uint8"), 1)


def recipe(folder: Path) -> Path:
    """Write a recipe with spatial blocks as splits."""
    values = {
        "backbone": {"name": "timm/resnet18", "bands": BANDS, "pretrained": False},
        "method": {"kind": "est"},
        "decoder": {"kind": "unet"},
        "task": {"kind": "segment", "classes": ["land", "burnt"]},
        "data": {
            "kind": "chips",
            "images": str(folder / "images"),
            "masks": str(folder / "masks"),
            "window": SIDE,
            "split": {"kind": "blocks", "side": "30000 m"},
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def main() -> None:
    """Create the chips, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/check-benchmark"))
    parser.add_argument("--chips", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    make(options.folder, options.chips)
    command = [sys.executable, "-m", "geotune", "check", str(recipe(options.folder)), "--json"]
    command += ["--page", str(options.folder / "check.html")]
    runs = []
    for _ in range(options.runs):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads(done.stdout)
        assert report["scenes"] == options.chips and not report["errors"], done.stdout[:2000]
        runs.append(
            {
                "seconds": round(time.perf_counter() - started, 2),
                "cpu_seconds": round(
                    after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
                ),
                "load_before": round(os.getloadavg()[0], 1),
            }
        )
        print(runs[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    result = {
        "what": f"geotune check: {options.chips} chips of {SIDE} pixels, {len(BANDS)} bands",
        "runs": runs,
        "seconds_best": min(run["seconds"] for run in runs),
        "peak_rss_bytes": peak,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "rasterio", "torch")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    path = Path(__file__).parent / "results" / "check.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
