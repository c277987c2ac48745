"""What `geotune export` writes, how far its predictions are from the run's, and how fast.

    python benchmarks/export.py          # every backbone x task x method x format; resumes
    python benchmarks/export.py --time   # ONNX against PyTorch, the same threads

Models with random weights, whose predictions vary. The largest difference is that of
`geotune.export`: of probabilities and scores, of numbers in standard deviations of the labels, of
coordinates as a share of the window. Results are written to `benchmarks/results/export.json`, and
as a table to `benchmarks/results/export.md`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from geotune.adapter_io import adapter_state
from geotune.api.exporting import Target, export
from geotune.config import Recipe, parse_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_model import build_training, load_adapter
from geotune.factory.save_model import save_model
from geotune.types import BandStatistics

RESULTS = Path(__file__).parent / "results" / "export.json"
TABLE = RESULTS.with_suffix(".md")
WINDOW = 64
RGB = ["red", "green", "blue"]
HLS = ["B02", "B03", "B04", "B8A", "B11", "B12"]
BACKBONES: dict[str, tuple[str, list[str]]] = {
    "ViT": ("timm/vit_tiny_patch16_224", RGB),
    "Swin": ("timm/swin_tiny_patch4_window7_224", RGB),
    "ConvNeXt": ("timm/convnext_atto", RGB),
    "ResNet": ("timm/resnet18", RGB),
    "Galileo": ("rslearn/galileo_nano", HLS),
    "Prithvi": ("terratorch/prithvi_eo_v2_tiny_tl", HLS),
}
METHODS = ("est", "lora", "frozen", "full")
TASKS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "task": {"kind": "segment", "classes": ["land", "water"]},
        "decoder": {"kind": "unet", "channels": [32, 24, 16, 8]},
    },
    "regression": {
        "task": {"kind": "regress", "quantity": "height", "mean": 5.0, "std": 3.0},
        "decoder": {"kind": "fcn", "channels": 32},
    },
    "classification": {
        "task": {"kind": "classify", "classes": ["a", "b", "c"]},
        "decoder": {"kind": "global_pool"},
    },
    "horizontal boxes": {
        "task": {"kind": "detect", "boxes": "horizontal", "classes": ["a", "b"]},
        "decoder": {"kind": "faster_rcnn", "channels": 32},
    },
    "oriented boxes": {
        "task": {"kind": "detect", "boxes": "oriented", "classes": ["a", "b"]},
        "decoder": {"kind": "rotated_fcos", "channels": 32},
    },
    "points": {
        "task": {"kind": "detect", "boxes": "points", "classes": ["a"], "pixel_m": 1.0},
        "decoder": {"kind": "fcos", "channels": 32},
    },
}
TARGETS: tuple[Target, ...] = ("onnx", "deepness", "pt2")
TIMED = (
    ("ResNet-18, full", "timm/resnet18", "full", 128),
    ("ConvNeXt-T, est", "timm/convnext_tiny", "est", 128),
    ("ViT-S, est", "timm/vit_small_patch16_224", "est", 224),
    ("ViT-S, lora", "timm/vit_small_patch16_224", "lora", 224),
)
"""Label, backbone, method and window of the models that are timed."""
REPEATS = 5


def recipe_of(backbone: str, bands: list[str], method: str, task: str, window: int) -> Recipe:
    """A recipe; its files are not read."""
    of_images = task == "classification"
    labels = {"kind": "images", "images": "x", "labels": "x.csv", "split": {"kind": "column"}}
    objects = "boxes" in task or task == "points"
    scenes = {
        "kind": "scenes",
        "scenes": "x/*.tif",
        "labels": "{stem}.geojson" if objects else "{stem}.tif",
        "split": {"kind": "random"},
    }
    return parse_recipe(
        {
            "backbone": {"name": backbone, "pretrained": False, "bands": bands},
            "method": {"kind": method},
            **TASKS[task],
            "data": {**(labels if of_images else scenes), "window": window},
            "train": {"precision": "32-true"},
        }
    )


def save_untrained(recipe: Recipe, bands: list[str], folder: Path) -> None:
    """The adapter of a model whose trained tensors are changed a little."""
    count = len(bands)
    statistics = BandStatistics(tuple(bands), (1000.0,) * count, (300.0,) * count, 9)
    built = build_training(recipe, statistics)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapter_state(built.model).values():
        if tensor.is_floating_point():
            scale = 0.02 + 0.05 * float(tensor.abs().mean())
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=scale)
    save_model(folder, built, recipe)


def try_export(name: str, method: str, task: str, to: Target) -> dict[str, Any]:
    """Export one combination: its largest difference, or the reason of a refusal."""
    backbone, bands = BACKBONES[name]
    row: dict[str, Any] = {"backbone": name, "method": method, "task": task, "to": to}
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = recipe_of(backbone, bands, method, task, WINDOW)
            save_untrained(recipe, bands, Path(folder))
            result = export(folder, to)
        except GeotuneError as error:
            name_of_file = f"{folder}/{Path(folder).name}"
            reason = str(error).replace(name_of_file, "model").replace(folder, "run")
            return row | {"refused": reason, "code": error.code}
    return row | {
        "largest_difference": result.largest_difference,
        "merged": result.merged,
        "megabytes": round(result.megabytes, 2),
        "seconds": round(result.seconds, 1),
    }


def measure_times() -> list[dict[str, Any]]:
    """Seconds per window of the run's model and of its ONNX file, in turn, on one thread."""
    from geotune.export_formats.onnx_file import OnnxModel

    torch.set_num_threads(1)
    rows = []
    for label, backbone, method, window in TIMED:
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_of(backbone, RGB, method, "segmentation", window)
            save_untrained(recipe, RGB, Path(folder))
            own = load_adapter(folder)
            file = OnnxModel(export(folder, "onnx").path, threads=1)
        images = torch.randn(1, 3, window, window) * 300 + 1000
        times: dict[str, list[float]] = {"pytorch": [], "onnx": []}
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            with torch.inference_mode():
                own.task.postprocess(own.model(images))
            middle = time.perf_counter()
            file({"images": images.numpy()})
            times["pytorch"].append(middle - start)
            times["onnx"].append(time.perf_counter() - middle)
        best = {name: min(seconds[1:]) for name, seconds in times.items()}
        rows.append(
            {"model": label, "window": window, "ratio": best["onnx"] / best["pytorch"], **best}
        )
        print(rows[-1], flush=True)
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the largest difference by backbone and task, a table for each format."""
    blocks = []
    for to in TARGETS:
        lines = [
            f"## {to}",
            "",
            "| backbone | method | " + " | ".join(TASKS) + " |",
            "|---|---|" + "---|" * len(TASKS),
        ]
        for name in BACKBONES:
            for method in METHODS:
                found = {
                    row["task"]: row
                    for row in rows
                    if (row["backbone"], row["method"], row["to"]) == (name, method, to)
                }
                cells = [_cell(found.get(task)) for task in TASKS]
                lines.append(f"| {name} | `{method}` | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    reasons = dict.fromkeys(row["refused"] for row in rows if "refused" in row)
    if reasons:
        blocks.append("Refused:\n\n" + "\n".join(f"- {reason}" for reason in reasons))
    return "\n\n".join(blocks) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return "refused" if "refused" in row else f"{row['largest_difference']:.0e}"


def main() -> int:
    """Measure what is missing; returns 0 if every written file is within 1e-4 of the run."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": [], "times": []}
    rows: list[dict[str, Any]] = known["rows"]
    timing = "--time" in sys.argv
    done = {(row["backbone"], row["method"], row["task"], row["to"]) for row in rows}
    combinations = [
        (name, method, task, to)
        for to in TARGETS
        for task in TASKS
        for name in BACKBONES
        for method in METHODS
        # the methods are alike in other formats and tasks: one of them, and every backbone
        if method == "est" or (to == "onnx" and task in ("segmentation", "oriented boxes"))
    ]
    if timing:
        known["times"] = measure_times()
    for combination in [] if timing else combinations:
        if combination not in done:
            rows.append(try_export(*combination))
            print(rows[-1], flush=True)
            _write(known)
    _write(known)
    return int(any(row.get("largest_difference", 0) > 1e-4 for row in rows))


def _write(found: dict[str, Any]) -> None:
    packages = ("geotune", "torch", "onnx", "onnxruntime", "onnxscript")
    found["versions"] = {name: version(name) for name in packages}
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
    }
    found["date"] = datetime.date.today().isoformat()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(as_table(found["rows"]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
