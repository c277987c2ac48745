"""Reading speed of training windows, compared with a plain rasterio loop over the same windows.

    python benchmarks/reading.py                    # everything, a minute or two
    python benchmarks/reading.py --scenes 4 --windows 200

Scenes are synthetic tiled, compressed uint16 GeoTIFFs, each with a class raster. Measured in
separate processes:

- windows per second of CPU time: a loop that reads image and mask of each window from open files
  and converts them to float32, and `RandomWindowDataset` with the training loader, which also draws
  windows, detects nodata, rotates image and mask, and stacks batches. Once with a GDAL block cache
  smaller than the scenes, as in training on more than a few of them, so that tiles are
  decompressed; once with one that holds all of them, so that reading is copying;
- windows per second of wall time with one worker and with two;
- resident set and open files over an epoch of many scenes.

CPU time is comparable on a busy machine; wall time is reported too. Results are written to
`benchmarks/results/reading.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BANDS = ("blue", "green", "red", "nir")
CLASSES = ("background", "field")
BATCH = 16
REPEATS = 5
MIN_SHARE = 0.8
RESULTS = Path(__file__).parent / "results" / "reading.json"


def make_scenes(folder: Path, count: int, size: int) -> None:
    """Write `count` scenes of `size` x `size` pixels with their labels."""
    import rasterio

    for kind in ("scenes", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        profile: dict[str, Any] = {
            "driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32633",
            "transform": rasterio.transform.from_origin(3e5 + i * size * 10, 5e6, 10, 10),
            "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1,
        }  # fmt: skip
        fields = np.kron(rng.integers(0, 2, (size // 32, size // 32)), np.ones((32, 32)))
        image = 1000 + 2000 * fields + rng.integers(0, 300, (len(BANDS), size, size))
        path = folder / "scenes" / f"{i:04}.tif"
        with rasterio.open(
            path, "w", count=len(BANDS), dtype="uint16", nodata=0, **profile
        ) as file:
            file.write(image.astype("uint16"))
            file.descriptions = BANDS
        with rasterio.open(
            folder / "labels" / f"{i:04}.tif", "w", count=1, dtype="uint8", **profile
        ) as file:
            file.write(fields.astype("uint8"), 1)


def train_windows(folder: Path, window: int, samples: int) -> Any:
    """Random training windows of the scenes."""
    from geotune.data.checks.scan import scan_scenes
    from geotune.data.labels.open_labels import open_labels
    from geotune.data.scenes.open_scenes import open_scenes
    from geotune.data.window_datasets import RandomWindowDataset

    scenes = open_scenes(
        partial(open_labels, classes=CLASSES),
        scenes=f"{folder}/scenes/*.tif",
        labels=f"{folder}/labels/{{stem}}.tif",
    )
    scans = [one for one in scan_scenes(scenes, window) if one is not None]
    return RandomWindowDataset(scenes, scans, window, samples=samples)


def rates(folder: Path, window: int, samples: int) -> dict[str, Any]:
    """Windows per second of CPU time of plain loop and loader, in alternating batches."""
    import rasterio
    import torch
    from rasterio.windows import Window

    from geotune.training.loaders import make_loader

    torch.set_num_threads(1)
    windows = train_windows(folder, window, samples)
    drawn = [windows.draw(np.random.default_rng([0, 0, i]))[0] for i in range(samples)]
    opened = [
        (rasterio.open(scene.raster.path), rasterio.open(scene.labels.path))
        for scene in windows.scenes
    ]

    def plain(indices: Sequence[Any]) -> None:
        for index in indices:
            area = Window(index.col, index.row, window, window)
            image, mask = opened[index.scene]
            image.read(window=area).astype("float32")
            mask.read(1, window=area)

    batches = make_loader(windows, BATCH, workers=0)
    shares, spent = [], []
    batch: Any = None  # training holds one batch while it requests the next
    for turn in range(REPEATS + 1):
        times = np.zeros((2, 2))  # (plain, geotune) x (CPU, wall)
        loaded = iter(batches)
        for start in range(
            0, samples, BATCH
        ):  # alternating, so that other load affects both equally
            for which, work in enumerate(
                (partial(plain, drawn[start : start + BATCH]), partial(next, loaded))
            ):
                before = time.process_time(), time.perf_counter()
                batch = work() or batch
                times[which] += np.subtract((time.process_time(), time.perf_counter()), before)
        if turn:  # the first fills the block cache
            shares.append(times[0, 0] / times[1, 0])
            spent.append(times)
    cpu, wall = samples / np.median(spent, axis=0).T
    return {
        "plain_windows_per_s": round(cpu[0], 1),
        "geotune_windows_per_s": round(cpu[1], 1),
        "plain_wall_windows_per_s": round(wall[0], 1),
        "geotune_wall_windows_per_s": round(wall[1], 1),
        "share": round(statistics.median(shares), 3),
        "share_min": round(min(shares), 3),
        "share_max": round(max(shares), 3),
    }


def workers(folder: Path, window: int, samples: int) -> dict[str, Any]:
    """Windows per second of wall time with one worker and with two, alternating."""
    import torch

    from geotune.training.loaders import make_loader

    torch.set_num_threads(1)
    windows = train_windows(folder, window, samples)
    loaders = {count: make_loader(windows, BATCH, workers=count) for count in (1, 2)}
    rates_of: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(REPEATS + 1):
        for count, batches in loaders.items():
            wall = time.perf_counter()
            for _ in batches:
                pass
            if turn:  # the first starts the processes
                rates_of[count].append(samples / (time.perf_counter() - wall))
    rate = {count: statistics.median(each) for count, each in rates_of.items()}
    return {
        "one_windows_per_s": round(rate[1], 1),
        "two_windows_per_s": round(rate[2], 1),
        "speedup": round(rate[2] / rate[1], 3),
        "load_average": [round(x, 1) for x in os.getloadavg()],
    }


def memory(folder: Path, window: int, samples: int) -> dict[str, Any]:
    """Resident set and open files over an epoch."""
    import psutil
    import torch

    from geotune.training.loaders import make_loader

    torch.set_num_threads(1)
    process = psutil.Process()
    windows = train_windows(folder, window, samples)
    resident, files = [], []
    batches = make_loader(windows, BATCH, workers=0)
    for i, _ in enumerate(batches):
        if i % max(1, len(batches) // 20) == 0:
            resident.append(process.memory_info().rss)
            files.append(process.num_fds())
    quarter = len(resident) // 4
    return {
        "scenes": len(windows.scenes),
        "resident_bytes": resident,
        "open_files": files,
        "growth_after_first_quarter": round(max(resident[quarter:]) / resident[quarter] - 1, 4),
    }


MEASURES = {"rates": rates, "rates_held": rates, "workers": workers, "memory": memory}
CACHE_MB = {"rates_held": 1024}
SMALL_MB = 16


def in_own_process(cache_mb: int, *arguments: str) -> Any:
    """Run this script in a new process; returns its last line as JSON."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GDAL_CACHEMAX": str(cache_mb)},
    )  # fmt: skip
    return json.loads(done.stdout.strip().rpartition("\n")[2])


def main() -> int:
    """Read the command line and measure; returns 0 if reading is fast enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=8, help="number of scenes for the rates")
    parser.add_argument("--size", type=int, default=2048, help="side of those scenes in pixels")
    parser.add_argument(
        "--many", type=int, default=300, help="number of scenes for the memory test"
    )
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=480)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASURES[args.measure](args.folder, args.window, args.windows)))
        return 0
    with tempfile.TemporaryDirectory() as own:
        large, many = Path(own) / "large", Path(own) / "many"
        make_scenes(large, args.scenes, args.size)
        make_scenes(many, args.many, 512)
        common = ("--window", str(args.window), "--windows", str(args.windows))
        results = {
            name: in_own_process(
                CACHE_MB.get(name, SMALL_MB),
                "--measure",
                name,
                "--folder",
                str(many if name == "memory" else large),
                *common,
            )
            for name in MEASURES
        }
    record = {
        "what": "training windows read through the loader against a plain rasterio loop",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "rasterio")},
        "scenes": args.scenes,
        "size": args.size,
        "bands": len(BANDS),
        "window": args.window,
        "windows": args.windows,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "block_cache_mb": {name: CACHE_MB.get(name, SMALL_MB) for name in MEASURES},
        **results,
        "min_share": MIN_SHARE,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(
        json.dumps({**results, "memory": {**results["memory"], "resident_bytes": "..."}}, indent=1)
    )
    return int(results["rates"]["share"] < MIN_SHARE)


if __name__ == "__main__":
    sys.exit(main())
