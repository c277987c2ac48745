"""Peak memory and time of tuning methods on common backbones, relative to `full`.

    python benchmarks/methods.py                       # every backbone and method, with times
    python benchmarks/methods.py --no-time --methods full frozen est

Memory is the peak of live tensors in the second training step (forward, backward, AdamW), tracked
on fake tensors; workspaces of kernels are not included. Time is that of the fastest of a few real
steps, on a CPU the CPU time, which other processes disturb least; `full` is timed in the same
process.

Existing rows are kept, unless they lack a requested time. Results are written to
`benchmarks/results/methods.{json,md,svg}`. `geotune bench recipes/suites/methods.yaml` compares the
accuracy.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import platform
import time
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW, Optimizer

from geotune.backbones.base import Backbone
from geotune.backbones.create import backbone
from geotune.config.decoder_options import UnetOptions
from geotune.config.task_options import SegmentOptions
from geotune.decoders.unet import Unet
from geotune.errors import GeotuneError
from geotune.memory.tracker import CATEGORIES, MemoryTracker, to_fake
from geotune.methods.core.base import Method
from geotune.model import Model
from geotune.registry import METHODS
from geotune.tasks.segment import Segment
from geotune.types import Normalization
from geotune.utils.activation_checkpointing import recompute_stages

RESULTS = Path(__file__).parent / "results"
BACKBONES = (
    "timm/vit_base_patch16_224",
    "timm/vit_large_patch16_224",
    "timm/swin_base_patch4_window7_224",
    "timm/convnext_base",
    "terratorch/prithvi_eo_v2_300",
)
RGB = ("red", "green", "blue")
BANDS = {"terratorch/prithvi_eo_v2_300": ("B02", "B03", "B04", "B8A", "B11", "B12")}
OPTIONS: dict[str, dict[str, Any]] = {"peft": {"tuner": "dora"}}
"""Options of methods that require some; the others use their defaults."""
TASK = Segment(SegmentOptions(classes=("background", "object"), loss="ce"))
TIMED_STEPS = 3
MAX_TIMED_SECONDS = 10.0
MIB = 2**20

Row = dict[str, Any]


# ---------------------------------------------------------------- one step
def make_method(method: str) -> Method:
    """The method with its required options."""
    instance: Method = METHODS[method].load()(**OPTIONS.get(method, {}))
    return instance


def adapted(base: Backbone, method: Method) -> Model:
    """A copy of the backbone with the method and a UNet; `GeotuneError` if unsupported."""
    encoder = method.attach(copy.deepcopy(base))
    channels = len(base.bands)
    plain = Normalization(base.bands, (0.0,) * channels, (1.0,) * channels)
    model = Model(plain, encoder, Unet(encoder.taps, TASK.num_outputs, UnetOptions())).train()
    recompute_stages(model)  # as with train.activation_checkpointing: decoder
    return model


def batch_of(base: Backbone, batch_size: int, size: int) -> tuple[Tensor, Tensor]:
    """Random images `(B, C, size, size)` and masks `(B, size, size)`."""
    images = torch.randn(batch_size, len(base.bands), size, size)
    return images, torch.randint(TASK.num_outputs, (batch_size, size, size))


def autocast(device: str, precision: str) -> AbstractContextManager[None]:
    """The autocast context of a precision."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def optimizer_of(model: nn.Module, foreach: bool | None = None) -> Optimizer:
    """AdamW for the trainable parameters."""
    return AdamW([p for p in model.parameters() if p.requires_grad], foreach=foreach)


def step(
    model: nn.Module, optimizer: Optimizer, batch: tuple[Tensor, Tensor], precision: str
) -> None:
    """One training step."""
    images, masks = batch
    with autocast(images.device.type, precision):
        loss = TASK.loss(model(images), masks)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def tracked(model: Model, batch: tuple[Tensor, Tensor], precision: str) -> dict[str, int]:
    """Peak bytes of the second step on fake tensors, in total and by category."""
    mode = FakeTensorMode()
    fake = to_fake(model, mode)
    fake_batch = mode.from_tensor(batch[0]), mode.from_tensor(batch[1])
    with mode:
        optimizer = optimizer_of(fake, foreach=True)  # the default of PyTorch on a GPU
        step(fake, optimizer, fake_batch, precision)
        with MemoryTracker(fake, optimizer, fake_batch) as tracker:
            step(fake, optimizer, fake_batch, precision)
    return {"total": tracker.peak.total} | {str(k): v for k, v in tracker.peak.by_category.items()}


def timed(model: Model, batch: tuple[Tensor, Tensor], precision: str, device: str) -> float:
    """Seconds of the fastest of up to `TIMED_STEPS` steps after a warm-up step."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    model = model.to(device)
    batch = batch[0].to(device), batch[1].to(device)
    optimizer = optimizer_of(model)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        start = clock()
        step(model, optimizer, batch, precision)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        if sum(seconds[1:]) > MAX_TIMED_SECONDS:
            break
    return min(seconds[1:])


# ---------------------------------------------------------------- all rows
def measure(options: argparse.Namespace, rows: list[Row]) -> None:
    """Measure missing rows, and write the results after each."""
    for name in options.backbones:
        todo = [m for m in options.methods if not done(rows, name, m, options)]
        if not todo:
            continue
        try:
            base = backbone(name, bands=BANDS.get(name, RGB), pretrained=False)
        except GeotuneError as error:  # a provider that is not installed
            print(error, flush=True)
            continue
        batch = batch_of(base, options.batch_size, options.size)
        full_seconds = None
        if options.time:
            full_seconds = timed(
                adapted(base, make_method("full")), batch, options.precision, options.device
            )
        for method in todo:
            row = key(name, method, options.precision)
            earlier = find_row(rows, row)
            if earlier is not None:
                rows.remove(earlier)
            try:
                row |= one_row(base, method, batch, full_seconds, options)
            except GeotuneError as error:
                row["refused"] = str(error)
            rows.append(row)
            write(rows, options)
            gc.collect()
            print(one_line(row, rows), flush=True)


def one_row(
    base: Backbone,
    method: str,
    batch: tuple[Tensor, Tensor],
    full_seconds: float | None,
    options: argparse.Namespace,
) -> Row:
    """Measurements of one method on one backbone, with times if `full` was timed."""
    model = adapted(base, make_method(method))
    row: Row = {
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "backbone_parameters": sum(p.numel() for p in base.parameters()),
        "peak_bytes": tracked(model, batch, options.precision),
    }
    if full_seconds is not None:
        is_full = method == "full"
        seconds = (
            full_seconds if is_full else timed(model, batch, options.precision, options.device)
        )
        row["time"] = {
            "device": options.device,
            "seconds": seconds,
            "full_seconds": full_seconds,
            "of_full": seconds / full_seconds,
        }
    return row


def key(name: str, method: str, precision: str) -> Row:
    """The columns that identify a row, and the options of the method."""
    options = make_method(method).model_dump(mode="json")
    return {"backbone": name, "method": method, "options": options, "precision": precision}


def find_row(rows: list[Row], wanted: Row) -> Row | None:
    """The row of the same backbone, method and precision, with any options."""
    same = ("backbone", "method", "precision")
    return next((row for row in rows if all(row[k] == wanted[k] for k in same)), None)


def done(rows: list[Row], name: str, method: str, options: argparse.Namespace) -> bool:
    """Whether the row exists with all requested measurements."""
    wanted = key(name, method, options.precision)
    row = find_row(rows, wanted)
    if row is None or options.again or row["options"] != wanted["options"]:
        return False
    return "refused" in row or "time" in row or not options.time


def share(row: Row, rows: list[Row]) -> float | None:
    """Peak memory relative to `full`."""
    full = find_row(rows, row | {"method": "full"})
    if full is None or "refused" in row or "refused" in full:
        return None
    return float(row["peak_bytes"]["total"] / full["peak_bytes"]["total"])


# ---------------------------------------------------------------- results
def settings(options: argparse.Namespace) -> Row:
    """The settings that all rows share."""
    return {"batch_size": options.batch_size, "size": options.size, "decoder": "unet"}


def read(options: argparse.Namespace) -> list[Row]:
    """The rows of an earlier run; raises `SystemExit` if it used other settings."""
    path = options.results / "methods.json"
    if not path.is_file():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["settings"] != settings(options):
        raise SystemExit(f"{path} has {before['settings']}: choose other --results")
    rows: list[Row] = before["rows"]
    return rows


def write(rows: list[Row], options: argparse.Namespace) -> None:
    """Write the JSON and the Markdown file."""
    names, methods = list(BACKBONES), list(METHODS)

    def position(row: Row) -> tuple[Any, ...]:
        name = row["backbone"]
        known = names.index(name) if name in names else len(names)
        return row["precision"] != "32", known, name, methods.index(row["method"])

    ordered = sorted((row for row in rows if row["method"] in methods), key=position)
    result = {
        "what": "peak memory (tracked, on fake tensors) and time of one training step",
        "settings": settings(options),
        "date": date.today().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "timm", "peft")},
        "rows": [row | {"memory_of_full": share(row, rows)} for row in ordered],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1)
    (options.results / "methods.json").write_text(text + "\n", encoding="utf-8")
    (options.results / "methods.md").write_text(table(ordered, options), encoding="utf-8")


def table(rows: list[Row], options: argparse.Namespace) -> str:
    """The rows as Markdown, with a table per backbone and precision; memory in MiB."""
    head = [
        "method",
        "trained",
        "peak",
        "of full",
        *(name.replace("_", " ") for name in CATEGORIES),
        "time",
    ]
    lines = [
        "# Tuning methods: memory and time of a training step",
        "",
        f"Written by `python benchmarks/methods.py`. Batch {options.batch_size}, "
        f"{options.size} pixels, UNet, AdamW, cross-entropy; every method with the stem. Memory in "
        "MiB, by category at the peak of the second step; time relative to `full` on one machine.",
    ]
    for precision in dict.fromkeys(row["precision"] for row in rows):
        for name in dict.fromkeys(row["backbone"] for row in rows):
            these = [r for r in rows if (r["backbone"], r["precision"]) == (name, precision)]
            if not these:
                continue
            lines += ["", f"## `{name}`, {PRECISIONS[precision]}", ""]
            lines += ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
            lines += ["| " + " | ".join(cells(row, rows)) + " |" for row in these]
            lines += [f"\n{row['refused']}." for row in these if "refused" in row]
    return "\n".join(lines) + "\n"


def cells(row: Row, rows: list[Row]) -> list[str]:
    """A row of the table."""
    if "refused" in row:
        return [shown(row), "not supported", *[""] * (3 + len(CATEGORIES))]
    peak, of_full = row["peak_bytes"], share(row, rows)
    return [
        shown(row),
        f"{row['trained_parameters'] / 1e6:.2f} M",
        f"{peak['total'] / MIB:,.0f}",
        "–" if of_full is None else f"{of_full:.1%}",
        *(f"{peak[name] / MIB:,.0f}" for name in CATEGORIES),
        f"{row['time']['of_full']:.2f}" if "time" in row else "–",
    ]


def shown(row: Row) -> str:
    """The name of the method, with the tuner of HF peft."""
    tuner = row["options"].get("tuner")
    return f"{row['method']} ({tuner})" if tuner else str(row["method"])


def one_line(row: Row, rows: list[Row]) -> str:
    """A row for the terminal."""
    name = f"{row['backbone']} {row['precision']}"
    if "refused" in row:
        return f"{name} {row['method']}: {row['refused']}"
    return f"{name} " + "  ".join(cells(row, rows))


# ---------------------------------------------------------------- plots
def draw(rows: list[Row], options: argparse.Namespace) -> None:
    """Plot memory against time, with a panel per backbone and precision, for rows with times."""
    rows = [row for row in rows if "time" in row and share(row, rows) is not None]
    panels = list(dict.fromkeys((row["backbone"], row["precision"]) for row in rows))
    if not panels:
        return
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    for i, (name, precision) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, i + 1)
        these = [row for row in rows if (row["backbone"], row["precision"]) == (name, precision)]
        points = [(row["time"]["of_full"], share(row, rows) or 0.0) for row in these]
        scatter(axes, points, [shown(row) for row in these])
        axes.set_title(f"{name.partition('/')[2]}, {PRECISIONS[precision]}", fontsize=9)
        axes.set(xlabel="time of a step, share of full", ylabel="peak memory, share of full")
    save(figure, options.results / "methods.svg")


def scatter(axes: Axes, points: list[tuple[float, float]], names: list[str]) -> None:
    """Plot points, with their names in a column at the right, without overlaps."""
    axes.grid(alpha=0.2)
    axes.margins(y=0.08)
    colors = {name: "#e07b26" if name == "est" else "#3b82d6" for name in names}
    for point, name in zip(points, names, strict=True):
        axes.plot(*point, "o", color=colors[name], markersize=5)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    low, high = axes.get_ylim()
    gap, at = (high - low) / 20, -math.inf
    lifted = []
    for point, name in sorted(zip(points, names, strict=True), key=lambda item: item[0][1]):
        at = max(point[1], at + gap)
        lifted.append((at, point, name))
    drop = max(0.0, at - high)  # keep the column inside the panel
    for at, point, name in lifted:
        axes.annotate(
            name, point, (1.03, at - drop), xycoords="data",
            textcoords=axes.get_yaxis_transform(), fontsize=7, va="center",
            arrowprops={"arrowstyle": "-", "color": colors[name], "alpha": 0.35, "lw": 0.6},
        )  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a reproducible SVG."""
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


PRECISIONS = {"32": "float32", "bf16": "bfloat16 autocast"}


def main() -> None:
    """Read the command line, measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="M")
    parser.add_argument("--precision", choices=PRECISIONS, default="32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--no-time", action="store_false", dest="time", help="memory only")
    parser.add_argument("--again", action="store_true", help="repeat existing rows")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = read(options)
    measure(options, rows)
    draw(rows, options)


if __name__ == "__main__":
    main()
