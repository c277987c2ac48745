"""Savings of a feature cache: time per epoch and peak memory of a step.

    OMP_NUM_THREADS=1 python benchmarks/cache.py      # all rows: minutes on a CPU core, and 12 GB
    python benchmarks/cache.py --rows est disk        # some of them

The model is that of `recipes/bench/vit_large_unet.yaml`: ViT-L/16 with random weights, 224 pixels,
batch 8, bf16 autocast, and a UNet. It is trained by full fine-tuning and by EST: with the backbone
in every step, with features from disk, and with features from memory, on the same windows of
synthetic scenes, without flips and rotations. A step consists of reading the batch, forward pass,
backward pass and optimizer. The rows take turns of at least 5 s, so that other load slows all of
them equally; the fastest step of each row counts, and `seconds_an_epoch` is computed from it. The
cache is built beforehand; `seconds_to_build` is the time for that.

Peak memory is that of the training device, tracked on fake tensors; with a cache, without the
backbone. Results are written to `benchmarks/results/cache.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW, Optimizer
from torch.utils._pytree import tree_map_only

from geotune.config import Recipe, load_recipe
from geotune.data.datamodule import DataModule
from geotune.data.synthetic.synthetic_scenes import CLASSES
from geotune.factory.build_data import build_data
from geotune.factory.build_model import BuiltModel, build_training
from geotune.feature_cache.build_cache import build_cache
from geotune.memory.tracker import MemoryTracker, to_fake
from geotune.model import Model
from geotune.training.loaders import WindowDataset, make_loader
from geotune.types import Batch
from geotune.utils.precision import autocast

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "bench" / "vit_large_unet.yaml"
RESULTS = Path(__file__).parent / "results" / "cache.json"
ROWS = {
    "full": ["method.kind=full"],
    "est": [],
    "disk": ["train.cache=disk"],
    "memory": ["train.cache=memory"],
    "disk, int8": ["train.cache=disk", "train.cache_precision=int8"],
    "disk, pca_fixed": ["train.cache=disk", "method.projection_init=pca_fixed"],
    "disk, no recomputation": ["train.cache=disk", "train.activation_checkpointing=none"],
}
TARGETS = {
    "from the cache, of full": ("disk", "full", 1 / 10),
    "from the cache without recomputation, of full": (
        "disk, no recomputation",
        "full",
        1 / 10,
    ),
    "from the cache, of streaming EST": ("disk", "est", 1 / 3),
    "streaming EST, of full": ("est", "full", 1 / 2),
}
MEMORY_TARGET = 0.06
MIN_SECONDS = 5.0
Row = dict[str, Any]


def recipe_of(row: str, folder: Path, options: argparse.Namespace) -> Recipe:
    """The recipe of a row, on a few windows of synthetic scenes in `folder`."""
    samples = options.steps * 8
    changes = [
        *ROWS[row],
        "backbone.bands=[B04,B03,B02]",
        f"data.folder={folder / 'scenes'}",
        "data.size=448",
        f"data.samples={samples}",
        "data.augment=false",
        "data.brightness=0",
        f"train.cache_folder={folder / 'cache'}",
        *options.overrides,
    ]
    return load_recipe(RECIPE, [*changes, f"task.classes=[{','.join(CLASSES)}]"])[0]


class RowRunner:
    """Runs and times the steps of one row."""

    def __init__(self, row: str, folder: Path, options: argparse.Namespace) -> None:
        recipe = recipe_of(row, folder, options)
        data = build_data(recipe)
        self.built = build_training(recipe, data.statistics)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.row: Row = {"name": row}
        self.windows: WindowDataset = data.train
        self.train = recipe.train
        self.seconds: list[tuple[float, float]] = []
        if recipe.train.cache != "none":
            self.read_cache(data)
        self.row["peak_bytes"] = self.tracked()
        self.model = self.built.model.to(self.device).train()
        self.optimizer = optimizer_of(self.model)

    def read_cache(self, data: DataModule) -> None:
        """Build the cache, and remove the backbone."""
        start = time.perf_counter()
        cached = build_cache(
            self.built.model,
            data,
            self.train,
            batch_size=self.train.batch_size,
            device=self.device,
            on_message=lambda text: print("  " + text, flush=True),
            on_progress=lambda done, total: None,
        )
        self.row["seconds_to_build"] = time.perf_counter() - start
        self.row["windows_computed"] = cached.computed
        features = cached.train[0].features
        self.row["bytes_a_window"] = sum(tensor.nbytes for tensor in features.values())
        self.windows = cached.train
        self.context = self.built.model.encoder.without_backbone()
        self.context.__enter__()

    def take_turn(self) -> None:
        """Run epochs for at least `MIN_SECONDS`."""
        wait: Callable[[], None] = lambda: None  # noqa: E731
        if self.device.type == "cuda":
            wait = torch.cuda.synchronize
        spent = 0.0
        while spent < MIN_SECONDS:
            batches = iter(make_loader(self.windows, self.train.batch_size, workers=0, pin=True))
            for _ in range(len(self.windows) // self.train.batch_size):
                start = time.perf_counter()
                batch: Any = next(batches)
                batch = batch.to(self.device)
                wait()
                read = time.perf_counter()
                step(self.model, self.built, self.optimizer, batch, self.train.precision)
                wait()
                end = time.perf_counter()
                self.seconds.append((read - start, end - read))
                spent += end - start
        turn = ", ".join(f"{sum(one):.2f}" for one in self.seconds)
        print(f"{self.row['name']}: {turn} s", flush=True)

    def tracked(self) -> int:
        """The peak of the second step, on fake tensors."""
        mode = FakeTensorMode()
        model = to_fake(self.built.model.train(), mode)
        batch = Batch.from_samples([self.windows[i] for i in range(self.train.batch_size)])
        inputs, masks = tree_map_only(
            torch.Tensor, mode.from_tensor, (dict(batch.inputs), batch.targets)
        )
        batch = Batch(inputs, masks)
        with mode:
            assert isinstance(model, Model)
            optimizer = optimizer_of(model, foreach=True)  # the default of PyTorch on a GPU
            step(model, self.built, optimizer, batch, self.train.precision)
            with MemoryTracker(model, optimizer, (inputs, masks)) as tracker:
                step(model, self.built, optimizer, batch, self.train.precision)
        return tracker.peak.total

    def result(self, steps: int) -> Row:
        """The measurements."""
        if not self.seconds:
            return self.row
        best = min(self.seconds, key=sum)
        return self.row | {
            "seconds_a_step": sum(best),
            "seconds_reading": best[0],
            "seconds_computing": best[1],
            "seconds_an_epoch": sum(best) * steps,
            "all_steps": [sum(one) for one in self.seconds],
        }


def optimizer_of(model: Model, foreach: bool | None = None) -> Optimizer:
    """AdamW for the trained parameters."""
    return AdamW([p for p in model.parameters() if p.requires_grad], foreach=foreach)


def step(
    model: Model, built: BuiltModel, optimizer: Optimizer, batch: Batch, precision: str
) -> None:
    """One training step."""
    with autocast(batch.targets.device, precision):
        loss = built.task.loss(model(**batch.inputs), batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def compared(rows: dict[str, Row]) -> Row:
    """Targets and measurements of rows of one call."""
    result: Row = {}
    for what, (name, reference, promised) in TARGETS.items():
        if all("seconds_a_step" in rows.get(each, {}) for each in (name, reference)):
            share = rows[name]["seconds_a_step"] / rows[reference]["seconds_a_step"]
            result[f"time {what}"] = {
                "share": share,
                "promised": promised,
                "met": share <= promised,
            }
    for row in rows.values():
        recomputes = not any("activation_checkpointing" in change for change in ROWS[row["name"]])
        if "train.cache" in " ".join(ROWS[row["name"]]) and recomputes and "full" in rows:
            share = row["peak_bytes"] / rows["full"]["peak_bytes"]
            result[f"memory {row['name']}, of full"] = {
                "share": share, "promised": MEMORY_TARGET, "met": share <= MEMORY_TARGET,
            }  # fmt: skip
    return result


def main() -> None:
    """Read the command line, measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--steps", type=int, default=2, help="steps per epoch")
    parser.add_argument("--turns", type=int, default=2, help="turns per row; 0: memory only")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runners = []
        for row in options.rows:
            print(f"{row}: preparing", flush=True)
            runners.append(RowRunner(row, Path(folder), options))
        for _ in range(options.turns):
            for runner in runners:
                runner.take_turn()
    rows = {runner.row["name"]: runner.result(options.steps) for runner in runners}
    results = {
        "recipe": str(RECIPE.relative_to(ROOT)),
        "overrides": options.overrides,
        "steps_an_epoch": options.steps,
        "turns": options.turns,
        "device": device_name(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": version("torch"),
        "date": datetime.date.today().isoformat(),
        "rows": list(rows.values()),
        "compared": compared(rows),
    }
    options.results.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["compared"], indent=2))


def device_name() -> str:
    """Name of the compute device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
