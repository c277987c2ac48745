"""Peak memory of a training step relative to `full`, and accuracy of the estimates.

    python benchmarks/memory.py             # both; the large models on fake tensors, on a CPU
    python benchmarks/memory.py --only checks

Shares: for each backbone and image size, the estimated peak of each method relative to `full` with
the same UNet decoder, in the recipe of `recipes/bench/vit_large_unet.yaml`. Checks: estimated and
tracked bytes of a real step on this CPU must agree within 2 %, over methods, small backbones,
decoders and sizes; with a CUDA device, estimates must agree with
`torch.cuda.max_memory_allocated` within 5 %. Results are written to
`benchmarks/results/memory.json` and `.md`.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import operator
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from geotune.api.budget_search import with_changes
from geotune.api.planning import Planner
from geotune.backbones.create import build_backbone
from geotune.config import Recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_model import build_model, build_task
from geotune.memory.estimate import PeakEstimate, StepSpec
from geotune.memory.tracker import MemoryTracker
from geotune.model import Model
from geotune.training.step import training_step_spec
from geotune.types import Normalization
from geotune.utils.feature_encoding import encode_features

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "bench" / "vit_large_unet.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
PRITHVI = ["B02", "B03", "B04", "B8A", "B11", "B12"]
BACKBONES: dict[str, dict[str, Any]] = {
    "ViT-L": {"name": "timm/vit_large_patch16_224"},
    "ViT-B": {"name": "timm/vit_base_patch16_224"},
    "Swin-B": {"name": "timm/swin_base_patch4_window7_224"},
    "Prithvi-EO 2.0 300M": {"name": "terratorch/prithvi_eo_v2_300", "bands": PRITHVI},
}
SIZES = (224, 512)
FROZEN = {"bf16": {"frozen_precision": "bf16"}, "int8": {"frozen_precision": "int8"}}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora"},
    "frozen": {"kind": "frozen"},
    "est": {"kind": "est"},
    **{f"est, {name}": {"kind": "est", **held} for name, held in FROZEN.items()},
}
CACHED = "est from the cache"
ROWS: dict[str, dict[str, Any]] = {
    **{name: {"method": method} for name, method in METHODS.items()},
    CACHED: {"method": METHODS["est"], "train.cache": "disk"},
}
TARGETS = {"est": 0.27, "est, bf16": 0.16, "est, int8": 0.12, CACHED: 0.06}
"""For ViT-L at 224 pixels."""
ALLOWED = {"cpu": 0.02, "cuda": 0.05}
SMALL = ("timm/test_vit", "timm/test_resnet", "timm/test_convnext")
CHECKED: dict[str, dict[str, Any]] = {
    **METHODS,
    "est, sum": {"kind": "est", "output": "sum"},
    "est, pca_fixed": {"kind": "est", "projection_init": "pca_fixed"},
    "adapter": {"kind": "adapter"},
    "norm": {"kind": "norm"},
    "lst": {"kind": "lst"},
}


def recipe_for(backbone: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """The benchmark recipe with another backbone and changes by key."""
    recipe, _ = load_recipe(RECIPE)
    return with_changes(recipe, {f"backbone.{key}": v for key, v in backbone.items()} | changes)


def planner_of(recipe: Recipe) -> Planner:
    """The planner for the recipe's backbone."""
    bands = recipe.backbone.bands
    assert isinstance(bands, tuple)  # names, in all recipes
    return Planner(recipe, bands)


# ---------------------------------------------------------------- shares of full
def shares() -> list[dict[str, Any]]:
    """A row for each backbone, size and method."""
    rows = []
    for label, backbone in BACKBONES.items():
        provider = str(backbone["name"]).partition("/")[0]
        if provider != "timm" and find_spec(provider) is None:
            print(f"{label}: {provider} is not installed, skipped", flush=True)
            continue
        planner = planner_of(recipe_for(backbone, {}))
        for size in SIZES:
            full: PeakEstimate | None = None
            for name, changes in ROWS.items():
                started = time.perf_counter()
                recipe = recipe_for(backbone, {**changes, "data.window": size})
                prediction, kept = planner.predict(recipe)
                full = full or prediction
                row: dict[str, Any] = {
                    "backbone": label,
                    "pixels": size,
                    "method": name,
                    "peak_bytes": prediction.cpu.total,
                    "parts": prediction.cpu.by_category,
                    "of_full": round(prediction.cpu.total / full.cpu.total, 4),
                    "gpu_peak_bytes": prediction.gpu.total,
                    "gpu_of_full": round(prediction.gpu.total / full.gpu.total, 4),
                    "operations_of_full": round(prediction.flops / full.flops, 4),
                    "cache_bytes_a_window": kept.window_bytes if kept else None,
                    "seconds_to_predict": round(time.perf_counter() - started, 1),
                }
                rows.append(row)
                print(
                    f"{label} {size} {name}: {row['peak_bytes'] / 2**20:.0f} MiB, "
                    f"{row['of_full']:.1%} of full",
                    flush=True,
                )
        del planner
        gc.collect()
    return rows


# ---------------------------------------------------------------- estimated and real
def checks(device: str) -> list[dict[str, Any]]:
    """Estimated and real peaks of small recipes."""
    rows = []
    combinations = itertools.product(SMALL, CHECKED.items(), ("unet", "upernet"))
    for number, (backbone, (name, method), decoder) in enumerate(combinations):
        size, batch = ((64, 4), (96, 2), (160, 2))[number % 3]
        precision = ("32-true", "bf16-mixed")[number // 6 % 2]
        accumulate = 2 if number % 5 == 0 else 1
        recipe = recipe_for(
            {"name": backbone},
            {
                "method": method,
                "decoder": {"kind": decoder},
                "data.window": size,
                "train.batch_size": batch * accumulate,
                "train.accumulate_steps": accumulate,
                "train.precision": precision,
                "train.activation_checkpointing": ("none", "decoder", "all")[number // 2 % 3],
            },
        )
        try:
            estimate, _ = planner_of(recipe).predict(recipe)
        except GeotuneError as error:
            print(f"{name} on {backbone}: rejected ({error})", flush=True)
            continue
        with real_step(recipe, torch.device(device)) as real:
            measured = real.peak()
        expected = (estimate.gpu if device == "cuda" else estimate.cpu).total
        rows.append(
            {
                "backbone": backbone,
                "method": name,
                "decoder": decoder,
                "pixels": size,
                "batch": batch,
                "accumulate_steps": accumulate,
                "precision": precision,
                "activation_checkpointing": recipe.train.activation_checkpointing,
                "predicted_bytes": expected,
                "measured_bytes": measured,
                "error": round(expected / measured - 1, 5),
            }
        )
        print(f"{rows[-1]}", flush=True)
        gc.collect()
    return rows


@dataclass(frozen=True)
class RealStep:
    """The step of a recipe on real tensors of random values.

    Attributes:
        inputs: of the model, for one batch.
    """

    model: Model
    spec: StepSpec
    inputs: Mapping[str, Any]
    targets: Tensor
    optimizer: Optimizer
    device: torch.device

    def run(self) -> None:
        """One step, in the order of `training/training_module.py` and Lightning."""
        spec, model = self.spec, self.model
        micro = spec.micro_batch or len(self.targets)
        loss_of = spec.loss(self.targets)
        for start in range(0, len(self.targets), micro):
            windows = slice(start, start + micro)
            inputs = tree_map_only(Tensor, operator.itemgetter(windows), self.inputs)
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=spec.precision != "32-true"
            ):
                loss = loss_of(model(**inputs), self.targets[windows])
            loss.backward()  # type: ignore[no-untyped-call]
            del loss, inputs
        nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.requires_grad], spec.grad_clip_norm
        )
        self.optimizer.step()
        for parameter in model.parameters():
            parameter.grad = None

    def peak(self) -> int:
        """The peak of the second step; the device's own count with CUDA, else tracked."""
        self.run()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.run()
            return torch.cuda.max_memory_allocated(self.device)
        with MemoryTracker(self.model, self.optimizer, (self.inputs, self.targets)) as tracker:
            self.run()
        return tracker.peak.total


@contextmanager
def real_step(recipe: Recipe, device: torch.device) -> Iterator[RealStep]:
    """The step of a recipe; with `train.cache`, on computed features and without the backbone."""
    bands = tuple(recipe.backbone.bands)  # type: ignore[arg-type]
    count, window, batch = len(bands), recipe.data.window, recipe.train.batch_size
    assert window is not None  # set in all recipes
    backbone = build_backbone(recipe.backbone, bands)
    model = build_model(recipe, backbone, Normalization(bands, (0.0,) * count, (1.0,) * count))
    inputs: dict[str, Any] = {"images": torch.rand(batch, count, window, window)}
    targets = torch.zeros(batch, window, window, dtype=torch.long)
    if model.encoder.reader.calibration_samples:
        model.calibrate([inputs])
    model.to(device)
    inputs["images"] = inputs["images"].to(device)
    context: AbstractContextManager[None] = nullcontext()
    if recipe.train.cache != "none":
        model.eval()
        mixed = recipe.train.precision != "32-true"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            encoded = encode_features(model.features(**inputs), recipe.train.cache_precision)
        inputs["features"] = {name: feature.to(device) for name, feature in encoded.items()}
        model.encoder.backbone.to("cpu")
        context = model.encoder.without_backbone()
    with context:
        model.train()
        spec = training_step_spec(build_task(recipe), recipe.train, inputs, targets)
        yield RealStep(model, spec, inputs, targets.to(device), spec.optimizer(model), device)


# ---------------------------------------------------------------- results
def table(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Peak memory",
        "",
        f"Written by `python benchmarks/memory.py` on {record['date']}: tensors of one training "
        "step (batch of 8, bf16 autocast, UNet decoder of 256, 128, 64, 32 and 16 channels, AdamW, "
        "`train.activation_checkpointing: decoder`), on fake tensors, relative to `full`.",
        "",
        "| backbone | pixels | " + " | ".join(ROWS) + " |",
        "|---|---|" + "---|" * len(ROWS),
    ]
    for label, size in itertools.product(BACKBONES, SIZES):
        by_method = {
            row["method"]: row
            for row in record["shares"]
            if (row["backbone"], row["pixels"]) == (label, size)
        }
        if by_method:
            cells = [
                f"{row['peak_bytes'] / 2**20:.0f} MiB, {row['of_full']:.1%}"
                for row in by_method.values()
            ]
            lines.append(f"| {label} | {size} | " + " | ".join(cells) + " |")
    for device, summary in record["checks"].items():
        if summary:
            lines += [
                "",
                f"Estimated against measured bytes on {device}, {summary['recipes']} recipes: "
                f"largest error {summary['largest_error']:.2%}, mean {summary['mean_error']:.3%} "
                f"(allowed {summary['allowed']:.0%}).",
            ]
    return "\n".join(lines) + "\n"


def summary_of(rows: list[dict[str, Any]], device: str) -> dict[str, Any] | None:
    """Summary of the checks on a device."""
    if not rows:
        return None
    errors = [abs(row["error"]) for row in rows]
    return {
        "recipes": len(rows),
        "largest_error": max(errors),
        "mean_error": round(sum(errors) / len(errors), 6),
        "allowed": ALLOWED[device],
        "rows": rows,
    }


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("shares", "checks"))
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    record |= {
        "what": "peak bytes of live tensors of a training step",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "timm", "peft")},
    }
    if options.only != "checks":
        record["shares"] = shares()
        record["targets"] = TARGETS
    if options.only != "shares":
        record["checks"] = {"cpu": summary_of(checks("cpu"), "cpu")}
        if torch.cuda.is_available():
            record["checks"]["cuda"] = summary_of(checks("cuda"), "cuda")
        else:
            print("no CUDA device: its check is skipped", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if "shares" in record and "checks" in record:
        RESULTS.with_suffix(".md").write_text(table(record), encoding="utf-8")
    return failures(record)


def failures(record: dict[str, Any]) -> int:
    """Print missed targets; returns their number."""
    missed = []
    for row in record.get("shares", []):
        target = TARGETS.get(row["method"])
        has_target = (row["backbone"], row["pixels"]) == ("ViT-L", 224) and target is not None
        if has_target and row["of_full"] > target:
            missed.append(f"{row['method']}: {row['of_full']:.1%} of full, not {target:.0%}")
    for device, summary in record.get("checks", {}).items():
        if summary and summary["largest_error"] > summary["allowed"]:
            missed.append(f"{device}: {summary['largest_error']:.2%} off")
    for line in missed:
        print(f"missed: {line}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
