"""Peak memory of mapping a scene does not grow with its size.

    python benchmarks/scene_memory.py                 # 4096 and 16384, a cheap convolution
    python benchmarks/scene_memory.py --model real --sizes 1024 2048   # a whole network

Each size runs in a separate process on a synthetic scene: patches of three brightnesses, noise and
a border without data. Measured is the peak resident memory of the process over reading, prediction,
and writing the map with overviews and polygons. Results are written to
`benchmarks/results/scene_memory.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geotune.config.decoder_options import UnetOptions

SIZES = (4096, 16384)
ALLOWED_GROWTH = 0.15
CLASSES = ("background", "field", "forest")
BANDS = ("red", "green", "nir")
RESULTS = Path(__file__).parent / "results" / "scene_memory.json"


def make_scene(path: Path, size: int, seed: int = 0) -> None:
    """Write a scene of `size` x `size` pixels, 3 bands of uint16, a few rows at a time."""
    import numpy as np
    import rasterio

    cell, rows = 32, 512
    rng = np.random.default_rng(seed)
    with rasterio.open(
        path, "w", driver="GTiff", height=size, width=size, count=len(BANDS), dtype="uint16",
        nodata=0, crs="EPSG:32633", transform=rasterio.transform.from_origin(3e5, 5e6, 10, 10),
        tiled=True, blockxsize=512, blockysize=512, compress="deflate", zlevel=1,
        bigtiff="if_safer",
    ) as file:  # fmt: skip
        file.descriptions = BANDS
        for row in range(0, size, rows):
            kinds = rng.integers(0, 3, (rows // cell, size // cell), dtype=np.uint16)
            values = np.kron(kinds, np.ones((cell, cell), dtype=np.uint16)) * 1000 + 1000
            for band in range(1, len(BANDS) + 1):
                noise = rng.integers(0, 8, values.shape, dtype=np.uint16)
                image = values + noise
                image[:, : size // 50] = 0
                file.write(image, band, window=rasterio.windows.Window(0, row, size, rows))


def conv_model() -> Any:
    """Two convolutions whose logits separate the three brightnesses of the scene."""
    import torch
    from torch import nn

    smooth = nn.Conv2d(len(BANDS), 1, 3, padding=1, padding_mode="replicate", bias=False)
    classifier = nn.Conv2d(1, len(CLASSES), 1)
    with torch.no_grad():
        smooth.weight.fill_(1 / smooth.weight.numel())
        # -(x - centre)^2 without x^2, which is equal for all classes
        centres = torch.tensor([1.0, 2.0, 3.0])
        classifier.weight[:, 0, 0, 0] = 2 * centres * 8
        assert classifier.bias is not None
        classifier.bias.copy_(-(centres**2) * 8)

    def forward(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = classifier(smooth(torch.nan_to_num(images) / 1000))
        return logits

    return forward


def real_model() -> Any:
    """A frozen ResNet-18 with random weights and a UNet decoder."""
    from geotune.backbones.create import backbone
    from geotune.decoders.unet import Unet
    from geotune.methods.selective import Frozen
    from geotune.model import Model
    from geotune.types import Normalization

    encoder = Frozen().attach(backbone("timm/resnet18", bands=BANDS, pretrained=False))
    decoder = Unet(encoder.taps, len(CLASSES), UnetOptions())
    return Model(Normalization(BANDS, (2000.0,) * 3, (1000.0,) * 3), encoder, decoder)


MODELS = {"conv": conv_model, "real": real_model}


def measure(scene: Path, out: Path, model: str, window: int, device: str) -> dict[str, Any]:
    """Map one scene in this process."""
    import torch

    from geotune.data.raster.open_raster import open_raster
    from geotune.inference.segmentation import segment_scene
    from geotune.inference.sliding_window import WindowOptions

    torch.set_num_threads(1)
    network = MODELS[model]()
    before = peak_bytes()
    result = segment_scene(
        lambda images: network(images).softmax(dim=1), open_raster(scene), out,
        WindowOptions(bands=BANDS, window=window, overlap=0.25, device=device),
        classes=CLASSES, name="scene",
    )  # fmt: skip
    return {
        "peak_bytes": peak_bytes(),
        "before_bytes": before,
        "seconds": round(result.seconds, 1),
        "windows": result.windows,
        "pixels": result.pixels,
        "nodata_pixels": result.nodata_pixels,
        "polygons": result.polygons,
    }


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    try:  # getrusage includes the memory of a parent that forked this process
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def in_own_process(*arguments: str) -> str:
    """Run this script in a new process; returns its last line."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.stdout.strip().rpartition("\n")[2]


def run(sizes: list[int], model: str, window: int, device: str, folder: Path | None) -> int:
    """Measure every size and write the results; returns 0 if memory does not grow."""
    results: dict[str, dict[str, Any]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            scene, out = Path(own) / "scene.tif", Path(own) / "out"
            in_own_process("--make", str(size), "--scene", str(scene))
            output = in_own_process(
                "--scene", str(scene), "--out", str(out), "--model", model,
                "--window", str(window), "--device", device,
            )  # fmt: skip
            results[str(size)] = json.loads(output)
        one = results[str(size)]
        print(f"{size:>6} px: {one['peak_bytes'] / 2**20:7.1f} MiB, {one['seconds']} s", flush=True)
    peaks = [one["peak_bytes"] for one in results.values()]
    growth = max(peaks) / peaks[0] - 1
    print(f"growth {growth:+.1%}, allowed {ALLOWED_GROWTH:.0%}")
    record = {
        "what": "peak resident memory of segment_scene (map, overviews, polygons) by scene side",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": 1,
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "rasterio", "shapely", "pyogrio")},
        "model": model,
        "window": window,
        "overlap": 0.25,
        "device": device,
        "sizes": results,
        "growth": round(growth, 4),
        "allowed_growth": ALLOWED_GROWTH,
    }
    if model == "conv" and tuple(sizes) == SIZES:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written: {RESULTS}")
    return int(growth > ALLOWED_GROWTH)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="sides in pixels")
    parser.add_argument("--model", choices=MODELS, default="conv")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="for the scenes; by default temporary")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make_scene(args.scene, args.make)
        return 0
    if args.scene:
        print(json.dumps(measure(args.scene, args.out, args.model, args.window, args.device)))
        return 0
    return run(args.sizes, args.model, args.window, args.device, args.folder)


if __name__ == "__main__":
    sys.exit(main())
