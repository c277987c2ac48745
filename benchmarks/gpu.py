"""Checks and times geotune on one CUDA device, in ten minutes.

    python benchmarks/gpu.py                    # all parts
    python benchmarks/gpu.py --parts plan resume
    python benchmarks/gpu.py --list             # the parts and their limits; needs no GPU
    python benchmarks/gpu.py --tiny             # tiny models on the CPU: checks this script only

Parts, each in a process of its own that is stopped at its time limit:

    plan      20 recipes: the estimate of `geotune plan` against `torch.cuda.max_memory_allocated`
              of the second step, which should differ by at most 3 %
    vit_l     ViT-L at 224 pixels, batch 8, bf16 autocast, UNet: milliseconds and peak memory of a
              step of full, LoRA, EST, EST with int8 weights, EST compiled, and EST from cached
              features that are already on the device
    prithvi   likewise with Prithvi-EO 2.0 300M; skipped without terratorch
    resume    `recipes/ships.yaml` for two epochs, and again with an interruption after the first;
              on synthetic scenes if its data are not in ../shared/data

Weights are random. Every row is written to `benchmarks/results/gpu.json` as soon as it is measured,
so an interrupted run keeps what it has; parts that are not run keep their earlier rows. The script
ends with exit code 0 and a message if there is no CUDA device, and writes nothing then; with 1 if a
part failed or was stopped, or an estimate is off.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import LambdaCallback

from geotune.api.fitting import fit
from geotune.config import Recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.training.compile import compiled_blocks
from geotune.utils.atomic import write_atomically
from memory import PRITHVI, RECIPE, ROOT, planner_of, real_step, recipe_for

RESULTS = Path(__file__).parent / "results" / "gpu.json"
LIMITS = {"plan": 200, "vit_l": 140, "prithvi": 140, "resume": 100}
"""Seconds of each part."""
ALLOWED = 0.03
VIT = "timm/vit_base_patch16_224"
CHECKS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (VIT, {"kind": "full"}, {}),
    (VIT, {"kind": "full"}, {"train.precision": "32-true"}),
    (VIT, {"kind": "full"}, {"train.accumulate_steps": 4}),
    (VIT, {"kind": "lora"}, {}),
    (VIT, {"kind": "lora"}, {"train.activation_checkpointing": "all"}),
    (VIT, {"kind": "frozen"}, {"train.precision": "32-true"}),
    (VIT, {"kind": "adaptformer"}, {"decoder": {"kind": "upernet"}}),
    (VIT, {"kind": "est"}, {}),
    (VIT, {"kind": "est"}, {"train.activation_checkpointing": "none"}),
    (VIT, {"kind": "est", "frozen_precision": "bf16"}, {}),
    (VIT, {"kind": "est", "frozen_precision": "int8"}, {"decoder": {"kind": "upernet"}}),
    (VIT, {"kind": "est"}, {"train.cache": "memory"}),
    ("timm/vit_large_patch16_224", {"kind": "lora"}, {"train.accumulate_steps": 2}),
    ("timm/vit_large_patch16_224", {"kind": "est"}, {}),
    ("timm/swin_tiny_patch4_window7_224", {"kind": "full"}, {}),
    ("timm/swin_tiny_patch4_window7_224", {"kind": "est"}, {}),
    ("timm/convnext_tiny", {"kind": "lora"}, {"decoder": {"kind": "upernet"}}),
    ("timm/convnext_tiny", {"kind": "lst"}, {}),
    ("timm/resnet50", {"kind": "full"}, {"data.window": 512}),
    ("timm/resnet50", {"kind": "est"}, {"data.window": 512}),
]
"""Backbone, method and other changes of the recipes whose estimate is checked."""
STEPS: dict[str, dict[str, Any]] = {
    "full": {"method": {"kind": "full"}},
    "lora": {"method": {"kind": "lora"}},
    "est": {"method": {"kind": "est"}},
    "est, cached": {"method": {"kind": "est"}, "train.cache": "memory"},
    "est, int8": {"method": {"kind": "est", "frozen_precision": "int8"}},
    "est, compile": {"method": {"kind": "est"}, "train.compile": True},
}
"""Changes of the timed steps."""
TINY = {
    "vit_base_patch16_224": "test_vit", "vit_large_patch16_224": "test_vit",
    "swin_tiny_patch4_window7_224": "test_vit", "convnext_tiny": "test_convnext",
    "resnet50": "test_resnet", "prithvi_eo_v2_300": "prithvi_eo_tiny",
}  # fmt: skip
"""Stand-ins of the backbones for `--tiny`."""
Row = dict[str, Any]


class Machine:
    """The device, and what depends on it.

    Args:
        tiny: small models on the CPU instead of the CUDA device.
    """

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.device = torch.device("cpu" if tiny else "cuda")
        self.untimed, self.timed = (1, 2) if tiny else (5, 30)

    def recipe(self, backbone: dict[str, Any], changes: dict[str, Any]) -> Recipe:
        """The benchmark's recipe with changes; with tiny models, small windows and batches."""
        if self.tiny:
            provider, _, name = backbone["name"].partition("/")
            backbone = {**backbone, "name": f"{provider}/{TINY[name]}"}
            changes = {**changes, "data.window": 64, "train.batch_size": 4}
        return recipe_for(backbone, changes)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def facts(self) -> Row:
        """What identifies the device and the software."""
        facts: Row = {"python": platform.python_version()} | {
            name: version(name) for name in ("torch", "timm", "peft", "lightning")
        }
        if self.tiny:
            return {"name": f"{platform.machine()} CPU, tiny models"} | facts
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        } | facts


# ---------------------------------------------------------------- parts
def plan_rows(machine: Machine) -> Iterator[Row]:
    """Estimated and measured peaks of `CHECKS`."""
    if machine.device.type == "cuda":  # creates the workspace of cuBLAS, which stays allocated
        square = torch.ones(64, 64, device=machine.device)
        square @ square
        del square
    for name, method, changes in CHECKS:
        recipe = machine.recipe(
            {"name": name}, {"method": method, "train.batch_size": 16, **changes}
        )
        row = {"backbone": name, "method": method, "changes": changes}
        yield attempted(row, partial(checked_estimate, recipe, machine))


def checked_estimate(recipe: Recipe, machine: Machine) -> Row:
    """The estimated peak beside the measured one."""
    estimate, _ = planner_of(recipe).predict(recipe)
    expected = (estimate.cpu if machine.tiny else estimate.gpu).total
    before = 0 if machine.tiny else torch.cuda.memory_allocated(machine.device)
    with real_step(recipe, machine.device) as real:
        peak = real.peak()
    error = expected / peak - 1
    return {
        "predicted_bytes": expected,
        "measured_bytes": peak,
        "allocated_before_bytes": before,  # workspaces of CUDA libraries
        "error": round(error, 5),
        "met": abs(error) <= ALLOWED,
    }


def step_rows(machine: Machine, backbone: dict[str, Any]) -> Iterator[Row]:
    """Time and memory of the steps of `STEPS`, relative to `full`."""
    full: Row | None = None
    for name, changes in STEPS.items():
        recipe = machine.recipe(backbone, changes)
        row = attempted({"name": name}, partial(timed_step, recipe, machine))
        full = row if name == "full" else full
        if full is not None and "error_text" not in full and "error_text" not in row:
            for measure in ("milliseconds", "peak_bytes"):
                row[f"{measure}_of_full"] = round(row[measure] / full[measure], 4)
        yield row


def timed_step(recipe: Recipe, machine: Machine) -> Row:
    """Median milliseconds and peak of the steps of a recipe."""
    notes: list[str] = []
    with real_step(recipe, machine.device) as real:
        peak = real.peak()
        backend = "eager" if machine.tiny else "inductor"
        compiled = compiled_blocks(real.model.encoder, machine.device, notes.append, backend)
        milliseconds = []
        with compiled if recipe.train.compile else nullcontext():
            started = time.perf_counter()
            for _ in range(machine.untimed):
                real.run()
            machine.synchronize()
            warmup = time.perf_counter() - started
            if machine.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(machine.device)
            for _ in range(machine.timed):
                started = time.perf_counter()
                real.run()
                machine.synchronize()
                milliseconds.append(1000 * (time.perf_counter() - started))
        if machine.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(machine.device)
        trained = sum(p.numel() for p in real.model.parameters() if p.requires_grad)
    return {
        "milliseconds": statistics.median(milliseconds),
        "fastest_milliseconds": min(milliseconds),
        "warmup_seconds": warmup,
        "windows_per_second": 1000 * recipe.train.batch_size / statistics.median(milliseconds),
        "peak_bytes": peak,
        "trained_parameters": trained,
        "notes": notes,
    }


def prithvi_rows(machine: Machine) -> Iterator[Row]:
    """The steps of Prithvi, with random weights."""
    if find_spec("terratorch") is None:
        yield {"skipped": "terratorch is not installed: pip install 'geotune[terratorch]'"}
        return
    yield from step_rows(machine, {"name": "terratorch/prithvi_eo_v2_300", "bands": PRITHVI})


def resume_rows(machine: Machine) -> Iterator[Row]:
    """A training without and with an interruption after the first epoch."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name, recipe = real_recipe(machine, folder)
        rows = []
        for interrupted in (False, True):
            run = folder / ("interrupted" if interrupted else "whole")
            row = {"recipe": name, "interrupted": interrupted}
            rows.append(attempted(row, partial(train, recipe, run, interrupted)))
            yield rows[-1]
        if all("metrics" in row for row in rows):
            files = [
                (folder / run / "adapter.safetensors").read_bytes()
                for run in ("whole", "interrupted")
            ]
            equal = rows[0]["metrics"] == rows[1]["metrics"]
            yield {"recipe": name, "equal_metrics": equal, "equal_tensors": files[0] == files[1]}


def real_recipe(machine: Machine, folder: Path) -> tuple[str, Recipe]:
    """`recipes/ships.yaml`, or a recipe on synthetic scenes; two short epochs."""
    changes = ["train.epochs=2", f"train.accelerator={'cpu' if machine.tiny else 'gpu'}"]
    if machine.tiny:
        changes += ["data.samples=4", "train.batch_size=2"]
    ships = ROOT / "recipes" / "ships.yaml"
    data = (ROOT / ".." / "shared" / "data" / "ships").is_dir()
    if data and find_spec("rslearn") is not None and not machine.tiny:
        return "recipes/ships.yaml", load_recipe(ships, changes)[0]
    recipe, _ = load_recipe(
        RECIPE,
        [
            f"backbone.name=timm/{'test_vit' if machine.tiny else 'vit_base_patch16_224'}",
            "backbone.bands=[B04,B03,B02]",
            "task.classes=[water,vegetation,fields,built-up,cloud,shadow]",
            f"data.folder={folder / 'scenes'}",
            f"data.size={64 if machine.tiny else 512}",
            f"data.window={64 if machine.tiny else 224}",
            f"train.precision={'32-true' if machine.tiny else 'bf16-mixed'}",
            *changes,
        ],
    )
    return "synthetic scenes", recipe


class _Interruption(Exception):
    """Stands for whatever ends a training early."""


def train(recipe: Recipe, run: Path, interrupted: bool) -> Row:
    """Train a recipe; interrupted means stopped at the start of the second epoch, then resumed."""

    def stop(trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise _Interruption

    started = time.perf_counter()
    if interrupted:
        with suppress(_Interruption):
            fit(recipe, run=run, callbacks=lambda: [LambdaCallback(on_train_epoch_start=stop)])
    done = fit(recipe, run=run)
    return {
        "status": done.status,
        "seconds": time.perf_counter() - started,
        "metrics": done.metrics,
        "peak_memory": done.summary["peak_memory"],
        "device": done.summary["device"],
        "precision": done.summary["precision"],
    }


PARTS: dict[str, Callable[[Machine], Iterator[Row]]] = {
    "plan": plan_rows,
    "vit_l": lambda machine: step_rows(machine, {"name": "timm/vit_large_patch16_224"}),
    "prithvi": prithvi_rows,
    "resume": resume_rows,
}


def attempted(row: Row, measure: Callable[[], Row]) -> Row:
    """The row with its measurements, or with the error; memory is freed in both cases."""
    try:
        return row | measure()
    except (GeotuneError, RuntimeError) as error:  # includes torch.OutOfMemoryError
        return row | {"error_text": str(error)}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# ---------------------------------------------------------------- results
class Record:
    """The JSON file, written after every change."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self.path = path
        self.values: Row = {}
        if path.is_file():
            self.values = json.loads(path.read_text(encoding="utf-8"))
        if self.values.get("device") != machine.facts():  # rows of another machine are not kept
            self.values = {"parts": {}}
        self.values |= {
            "what": "geotune on a CUDA device: memory, time, training",
            "date": date.today().isoformat(),
            "device": machine.facts(),
            "allowed_error": ALLOWED,
        }

    def start(self, part: str) -> None:
        """Begin a part again."""
        self.values["parts"][part] = {"status": "stopped", "limit_s": LIMITS[part], "rows": []}
        self._write()

    def add(self, part: str, row: Row) -> None:
        """Keep a row."""
        self.values["parts"][part]["rows"].append(row)
        self._write()

    def finish(self, part: str, status: str, seconds: float) -> None:
        """Note how a part ended: `done`, `failed` or `time limit`."""
        self.values["parts"][part] |= {"status": status, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.values, indent=1) + "\n"
        write_atomically(self.path, text.encode("utf-8"))

    def problems(self, parts: list[str]) -> list[str]:
        """What was stopped, failed or is off."""
        found = []
        for name in parts:
            part = self.values["parts"][name]
            if part["status"] != "done":
                found.append(f"{name}: {part['status']}")
            for row in part["rows"]:
                label = " ".join(str(row[k]) for k in ("backbone", "method", "name") if k in row)
                if "error_text" in row:
                    found.append(f"{name} {label}: {row['error_text']}")
                if not row.get("met", True):
                    found.append(f"{name} {label}: estimate off by {row['error']:.1%}")
        return found


def run_part(part: str, record: Record, tiny: bool) -> None:
    """Run a part in a process of its own, for at most its time limit."""
    record.start(part)
    started = time.perf_counter()
    command = [sys.executable, str(Path(__file__)), "--child", part, *(["--tiny"] if tiny else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        timer = threading.Timer(LIMITS[part], process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{part}: {line.rstrip()}", flush=True)
            if line.startswith("{"):
                record.add(part, json.loads(line))
        code = process.wait()
        timer.cancel()
    seconds = time.perf_counter() - started
    late = code != 0 and seconds >= LIMITS[part]
    record.finish(part, "done" if code == 0 else "time limit" if late else "failed", seconds)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--list", action="store_true", help="show the parts and their limits")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--results", type=Path, metavar="FILE")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.list:
        for part in options.parts:
            print(f"{part}: at most {LIMITS[part]} s")
        return 0
    if not options.tiny and not torch.cuda.is_available():
        print("no CUDA device: nothing is measured; --tiny checks the script on the CPU")
        return 0
    machine = Machine(options.tiny)
    if options.child:
        for row in PARTS[options.child](machine):
            print(json.dumps(row), flush=True)
        return 0
    if options.tiny and options.results is None:
        parser.error("--tiny needs --results, so that no measurement is overwritten")
    record = Record(options.results or RESULTS, machine)
    for part in options.parts:
        run_part(part, record, options.tiny)
    problems = record.problems(options.parts)
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
