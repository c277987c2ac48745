"""What training from kept features saves: seconds of an epoch, and the peak memory of a step.

    python benchmarks/cache.py                  # all rows: minutes on two CPU cores, and 12 GB
    python benchmarks/cache.py --rows est disk  # some of them

The model is that of `recipes/bench/vit_large_unet.yaml`: ViT-L/16 with random weights, 224 pixels,
batch 8, bf16 autocast, and a UNet; trained in full, and by EST with the backbone run for every
step, with its features read from the disk, and from memory. All of one call run one after the
other on the same windows of synthetic scenes, without flips and turns. A step is reading its batch,
the pass forward, the pass back and the optimizer; the fastest counts, and an epoch is as many of
them as it has. The cache is built beforehand; `seconds_to_build` says how long that takes.

Peak memory is that of the device that trains, tracked on fake tensors: with a cache the backbone is
not there. The figures go to `benchmarks/results/cache.json`.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW, Optimizer
from torch.utils._pytree import tree_map_only

from geotune.build.data import build_data
from geotune.build.model import Built, build_training
from geotune.data.synthetic import CLASSES
from geotune.memory.track import Tracker, faked
from geotune.model import Model
from geotune.recipe import Recipe, read_recipe
from geotune.training.cache import build_cache
from geotune.training.evaluate import autocast
from geotune.training.loaders import Windows, loader
from geotune.types import Batch

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "bench" / "vit_large_unet.yaml"
RESULTS = Path(__file__).parent / "results" / "cache.json"
ROWS = {
    "full": ["method.kind=full"],
    "est": [],
    "disk": ["train.cache=disk"],
    "memory": ["train.cache=memory"],
    "disk, int8": ["train.cache=disk", "train.cache_precision=int8"],
    "disk, pca_fixed": ["train.cache=disk", "method.down=pca_fixed"],
}
TARGETS = {
    "from the cache, of full": ("disk", "full", 1 / 10),
    "from the cache, of streaming EST": ("disk", "est", 1 / 3),
    "streaming EST, of full": ("est", "full", 1 / 2),
}
MEMORY_TARGET = 0.06
Row = dict[str, Any]


def recipe_of(row: str, folder: Path, options: argparse.Namespace) -> Recipe:
    """The recipe of a row, on a few windows of scenes made in `folder`."""
    samples = options.steps * 8
    changes = [
        *ROWS[row], "backbone.bands=[B04,B03,B02]", f"data.folder={folder / 'scenes'}", "data.size=448", f"data.samples={samples}",
        "data.augment=false", "data.brightness=0", f"train.cache_folder={folder / 'cache'}",
        *options.overrides,
    ]  # fmt: skip
    return read_recipe(RECIPE, [*changes, f"task.classes=[{','.join(CLASSES)}]"])[0]


def one_row(row: str, folder: Path, options: argparse.Namespace) -> Row:
    """What is measured of one way to train."""
    recipe = recipe_of(row, folder, options)
    data = build_data(recipe)
    built = build_training(recipe, data.statistics)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: Row = {"name": row}
    windows: Windows = data.train
    if recipe.train.cache != "none":
        start = time.perf_counter()
        cached = build_cache(
            built.model,
            data,
            recipe.train,
            batch_size=recipe.train.batch_size,
            device=device,
            say=lambda text: print("  " + text, flush=True),
            progress=lambda done, total: None,
        )
        found["seconds_to_build"] = time.perf_counter() - start
        found["windows_computed"] = cached.computed
        found["bytes_a_window"] = sum(tensor.nbytes for tensor in cached.train[0].features.values())
        windows = cached.train
    without = built.model.encoder.without_backbone() if windows is not data.train else nullcontext()
    with without:
        found["peak_bytes"] = tracked(built, recipe, windows)
        if options.time:
            steps = timed(built, recipe, windows, device)
            best = min(steps, key=sum)
            found |= {
                "seconds_a_step": sum(best),
                "seconds_reading": best[0],
                "seconds_computing": best[1],
                "seconds_an_epoch": sum(best) * options.steps,
                "all_steps": [sum(step) for step in steps],
            }
    return found


def optimizer_of(model: Model, foreach: bool | None = None) -> Optimizer:
    """AdamW of what trains."""
    return AdamW([p for p in model.parameters() if p.requires_grad], foreach=foreach)


def step(model: Model, built: Built, optimizer: Optimizer, batch: Batch, precision: str) -> None:
    """One training step."""
    with autocast(batch.masks.device, precision):
        loss = built.task.loss(model(**batch.inputs), batch.masks)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def timed(
    built: Built, recipe: Recipe, windows: Windows, device: torch.device
) -> list[tuple[float, float]]:
    """Seconds of reading and of computing, for each step of an epoch."""
    model = built.model.to(device).train()
    optimizer = optimizer_of(model)
    batches: Iterator[Any] = iter(loader(windows, recipe.train.batch_size, workers=0, pin=True))
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches).to(device)
        except StopIteration:
            return seconds
        wait()
        read = time.perf_counter()
        step(model, built, optimizer, batch, recipe.train.precision)
        wait()
        seconds.append((read - start, time.perf_counter() - read))
        print(
            f"  a step in {sum(seconds[-1]):.2f} s, {seconds[-1][0]:.2f} of it to read", flush=True
        )


def tracked(built: Built, recipe: Recipe, windows: Windows) -> int:
    """The peak of the second step, on fake tensors."""
    mode = FakeTensorMode()
    model = faked(built.model.train(), mode)
    batch = Batch.of([windows[i] for i in range(recipe.train.batch_size)])
    inputs, masks = tree_map_only(torch.Tensor, mode.from_tensor, (dict(batch.inputs), batch.masks))
    batch = Batch(inputs, masks)
    with mode:
        assert isinstance(model, Model)
        optimizer = optimizer_of(model, foreach=True)  # as PyTorch chooses on a GPU
        step(model, built, optimizer, batch, recipe.train.precision)
        with Tracker(model, optimizer, (inputs, masks)) as tracker:
            step(model, built, optimizer, batch, recipe.train.precision)
    return tracker.peak.total


def compared(rows: dict[str, Row]) -> Row:
    """What was promised and what came out, of rows of the same call."""
    found: Row = {}
    for what, (row, of, promised) in TARGETS.items():
        if all("seconds_a_step" in rows.get(name, {}) for name in (row, of)):
            share = rows[row]["seconds_a_step"] / rows[of]["seconds_a_step"]
            found[f"time {what}"] = {"share": share, "promised": promised, "met": share <= promised}
    for row in rows.values():
        if row["name"] not in ("full", "est") and "full" in rows:
            share = row["peak_bytes"] / rows["full"]["peak_bytes"]
            found[f"memory {row['name']}, of full"] = {
                "share": share, "promised": MEMORY_TARGET, "met": share <= MEMORY_TARGET,
            }  # fmt: skip
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--steps", type=int, default=2, help="of an epoch")
    parser.add_argument("--no-time", action="store_false", dest="time", help="memory alone")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in options.rows:
            print(row, flush=True)
            rows[row] = one_row(row, Path(folder), options)
            gc.collect()
            results = {
                "recipe": str(RECIPE.relative_to(ROOT)),
                "overrides": options.overrides,
                "steps_an_epoch": options.steps,
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
    """What computes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
