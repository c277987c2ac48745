"""Cost of each option of EST: peak memory and time of a training step with a ViT-L.

    python benchmarks/est_options.py
    python benchmarks/est_options.py --no-time

Measured as in `benchmarks/methods.py`, with batch 8, 224 pixels, bf16 autocast, UNet, AdamW and
random weights; each row changes one default of EST. `full` is measured in the same process.
`geotune bench recipes/suites/est_options.yaml` compares the accuracy. Results are written to
`benchmarks/results/est_options.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from geotune.backbones.create import backbone
from geotune.methods.core.base import Method
from geotune.methods.est import Est
from methods import MIB, RGB, adapted, batch_of, make_method, timed, tracked

RESULTS = Path(__file__).parent / "results" / "est_options.json"
NAME, BATCH_SIZE, SIZE, PRECISION = "timm/vit_large_patch16_224", 8, 224, "bf16"
OPTIONS: dict[str, dict[str, Any]] = {
    "est": {},
    "block_stride 1": {"block_stride": 1},
    "block_stride 3": {"block_stride": 3},
    "block_stride 6": {"block_stride": 6},
    "reduction 4": {"reduction": 4},
    "reduction 16": {"reduction": 16},
    "gate static": {"gate": "static"},
    "output sum": {"output": "sum"},
    "kernel_size 7": {"kernel_size": 7},
    "use_block_internals": {"use_block_internals": True},
    "adapters 4": {"adapters": (4,)},
    "stem_width 0": {"stem_width": 0},
    "projection_init pca_fixed": {"projection_init": "pca_fixed"},
    "frozen_precision bf16": {"frozen_precision": "bf16"},
}

Row = dict[str, Any]


def measure(with_time: bool, device: str) -> list[Row]:
    """Measure `full` and each of `OPTIONS`; returns their rows."""
    base = backbone(NAME, bands=RGB, pretrained=False)
    batch = batch_of(base, BATCH_SIZE, SIZE)
    methods: dict[str, Method] = {"full": make_method("full")}
    methods |= {name: Est(**options) for name, options in OPTIONS.items()}
    rows: list[Row] = []
    for name, method in methods.items():
        model = adapted(base, method)
        if model.encoder.reader.calibration_samples:
            model.calibrate([{"images": batch[0]}])
        row: Row = {
            "name": name,
            "options": OPTIONS.get(name, {}),
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "peak_bytes": tracked(model, batch, PRECISION),
        }
        if with_time:
            row["seconds"] = timed(model, batch, PRECISION, device)
        rows.append(row)
        full = rows[0]
        row["memory_of_full"] = row["peak_bytes"]["total"] / full["peak_bytes"]["total"]
        if with_time:
            row["time_of_full"] = row["seconds"] / full["seconds"]
        del model
        gc.collect()
        print(one_line(row), flush=True)
    return rows


def one_line(row: Row) -> str:
    """A row for the terminal."""
    time = f"{row['time_of_full']:7.3f} of the time" if "seconds" in row else ""
    return (
        f"{row['name']:22} {row['trained_parameters'] / 1e6:7.2f} M "
        f"{row['peak_bytes']['total'] / MIB:7.0f} MiB {row['memory_of_full']:7.1%} of full {time}"
    )


def main() -> None:
    """Read the command line, measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--no-time", action="store_false", dest="time", help="memory only")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {
        "what": "EST's options: peak memory (tracked, on fake tensors) and time of a training step",
        "settings": {
            "backbone": NAME,
            "batch_size": BATCH_SIZE,
            "size": SIZE,
            "precision": PRECISION,
            "decoder": "unet",
            "device": device,
        },
        "date": date.today().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "timm")},
        "rows": measure(options.time, device),
    }
    options.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
