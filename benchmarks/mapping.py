"""Rate and memory of mapping a scene, beside the tiled inference of TerraTorch.

    python benchmarks/mapping.py        # both networks at 8192, growth to 32768; resumes
    python benchmarks/mapping.py --sizes 2048 --growth 1024 2048

All sides map the same synthetic scene with the same network (random weights), threads, window,
overlap and batch size, and write the class map as a GeoTIFF; each measurement is a process of its
own. The precision is float32, also where importing TerraTorch lowers that of matrix products; a
third side is geotune with `precision="bf16-mixed"`. geotune is `geotune.predict` without polygons;
it blends as it goes and writes overviews and statistics too. TerraTorch is its `tiled_inference`
with its defaults of blending, which takes the whole scene as a tensor and returns that of all
outputs; its command line reads and writes around it as is done here. Growth is that of
`geotune.predict` with a small network.

The sides take turns, and the fastest of several measurements counts: other programs of the machine
can only make one slower. Peak memory is the resident memory of the process. Results are written to
`benchmarks/results/mapping.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "mapping.json"
BANDS = ["red", "green", "nir"]
CLASSES = ["background", "field", "forest"]
UNET = {"kind": "unet", "channels": [64, 32, 16, 16]}
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-18 + UNet": {
        "backbone": "timm/resnet18", "method": {"kind": "full"}, "decoder": UNET,
    },
    "ViT-S/16 + EST": {
        "backbone": "timm/vit_small_patch16_224", "method": {"kind": "est"}, "decoder": UNET,
    },
    "small": {
        "backbone": "geotune/convnext_mini", "method": {"kind": "frozen", "stem_width": 0},
        "decoder": {"kind": "linear"},
    },
}  # fmt: skip
COMPARED = ("ResNet-18 + UNet", "ViT-S/16 + EST")
WINDOW, STRIDE, BATCH = 224, 192, 8
"""Those of TerraTorch, whose default batch is 16."""
PRECISIONS = {"geotune": "32-true", "geotune bf16-mixed": "bf16-mixed"}
REFERENCE = "TerraTorch"
SIDES = (*PRECISIONS, REFERENCE)


def build(network: str, folder: Path) -> None:
    """Write the adapter of a network with random weights."""
    import torch

    from geotune.config import parse_recipe
    from geotune.factory.build_model import build_training
    from geotune.factory.save_model import save_model
    from geotune.types import BandStatistics

    torch.manual_seed(0)
    parts = NETWORKS[network]
    recipe = parse_recipe(
        {
            "backbone": {"name": parts["backbone"], "pretrained": False, "bands": BANDS},
            "method": parts["method"],
            "decoder": parts["decoder"],
            "task": {"kind": "segment", "classes": CLASSES},
            "data": {
                "kind": "scenes", "scenes": "x/*.tif", "labels": "{stem}.tif", "window": WINDOW,
                "split": {"kind": "random"},
            },
            "train": {"precision": "32-true"},
        }
    )  # fmt: skip
    statistics = BandStatistics(tuple(BANDS), (2000.0,) * 3, (1000.0,) * 3, 9)
    built = build_training(recipe, statistics)
    save_model(folder, built, recipe)


def map_with_geotune(adapter: Path, scene: Path, out: Path, precision: Any) -> int:
    """Number of windows."""
    import geotune

    overlap = 1 - STRIDE / WINDOW
    [result] = geotune.predict(
        adapter, scene, out, window=WINDOW, overlap=overlap, batch_size=BATCH, polygons=False,
        qgis=False, device="cpu", precision=precision,
    )  # fmt: skip
    return result.windows


def map_with_terratorch(adapter: Path, scene: Path, out: Path) -> int:
    """Number of windows."""
    import rasterio
    import torch
    from terratorch.tasks.tiled_inference import tiled_inference

    import geotune

    torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it
    model = geotune.load_adapter(adapter).model.eval()
    windows = 0

    def forward(images: torch.Tensor) -> torch.Tensor:
        nonlocal windows
        windows += len(images)
        outputs: torch.Tensor = model(images)
        return outputs

    with rasterio.open(scene) as file:
        image = torch.from_numpy(file.read().astype("float32"))
        profile = file.profile
    logits = tiled_inference(forward, image[None], crop=WINDOW, stride=STRIDE, batch_size=BATCH)
    classes = logits[0].argmax(0).to(torch.uint8).numpy()
    out.mkdir()
    profile.update(count=1, dtype="uint8", nodata=255)
    with rasterio.open(out / "classes.tif", "w", **profile) as file:
        file.write(classes, 1)
    return windows


def measure(side: str, adapter: Path, scene: Path, out: Path) -> dict[str, Any]:
    """Map a scene in this process."""
    import torch
    from scene_memory import peak_bytes

    torch.set_num_threads(1)
    started, cpu = time.perf_counter(), time.process_time()
    if side == REFERENCE:
        windows = map_with_terratorch(adapter, scene, out)
    else:
        windows = map_with_geotune(adapter, scene, out, PRECISIONS[side])
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_bytes": peak_bytes(),
        "windows": windows,
    }


def in_own_process(*arguments: str) -> Any:
    """Run this script in a new process; returns its last line."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.strip().rpartition("\n")[2] or "null")


def key(row: dict[str, Any]) -> tuple[str, int, str]:
    """Network, size and side of a measurement."""
    return row["network"], row["size"], row["side"]


def write(rows: list[dict[str, Any]]) -> None:
    """Write the measurements, and the ratios of the fastest that both sides have."""
    fastest: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["seconds"], reverse=True):
        fastest[key(row)] = row
    ratios = [
        {
            "network": network,
            "size": size,
            "side": side,
            **{
                f"{name}_of_terratorch": round(
                    row[name] / fastest[network, size, REFERENCE][name], 3
                )
                for name in ("seconds", "cpu_seconds", "peak_bytes")
            },
        }
        for (network, size, side), row in sorted(fastest.items())
        if side != REFERENCE and (network, size, REFERENCE) in fastest
    ]
    names = ("geotune", "torch", "terratorch", "rasterio", "timm")
    record = {
        "window": WINDOW,
        "stride": STRIDE,
        "batch_size": BATCH,
        "threads": 1,
        "rows": rows,
        "ratios": ratios,
        "versions": {name: version(name) for name in names},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def run(sizes: list[int], growth: list[int], repeats: int, folder: Path | None) -> None:
    """Measure what is not in the results yet."""
    wanted = [
        (network, size, side)
        for network in COMPARED
        for size in sizes
        for _ in range(repeats)
        for side in SIDES
    ]
    wanted += [("small", size, SIDES[0]) for size in growth]
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    done = Counter(map(key, rows))
    for network, size, side in wanted:
        if done[network, size, side]:
            done[network, size, side] -= 1
            continue
        with tempfile.TemporaryDirectory(dir=folder) as name:
            row = measured(network, size, side, Path(name))
        row["megapixels_per_second"] = round(size**2 / 1e6 / row["seconds"], 3)
        rows.append({"network": network, "size": size, "side": side, **row})
        print(json.dumps(rows[-1]), flush=True)
        write(rows)


def measured(network: str, size: int, side: str, folder: Path) -> dict[str, Any]:
    """One measurement, on a new scene."""
    from scene_memory import make_scene

    scene, adapter = folder / "scene.tif", folder / "adapter"
    make_scene(scene, size)
    in_own_process("--build", network, "--folder", str(adapter))
    row: dict[str, Any] = in_own_process(
        "--measure", side, "--folder", str(adapter), "--scene", str(scene)
    )
    return row


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[8192], help="sides in pixels")
    parser.add_argument("--growth", type=int, nargs="*", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison")
    parser.add_argument("--folder", type=Path, help="for the scenes; by default temporary")
    parser.add_argument("--build", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, options.folder)
    elif options.measure:
        out = options.folder.parent / "out"
        print(json.dumps(measure(options.measure, options.folder, options.scene, out)))
    else:
        run(options.sizes, options.growth, options.repeats, options.folder)


if __name__ == "__main__":
    main()
