"""geotune beside TerraTorch, HF peft in a plain PyTorch loop, and torchgeo's trainer, on a CPU.

    python benchmarks/peers.py             # Prithvi tiny: minutes on one core
    python benchmarks/peers.py --full      # Prithvi 1.0 100M
    python benchmarks/peers.py --contenders "geotune est" "terratorch full"

Each contender trains one epoch in its own process, with the same number of threads, on the same
synthetic scenes of 224 pixels, in batches of 2, in float32, with AdamW, without augmentation:
Prithvi with random weights and a UNet of 256, 128, 64 and 32 channels, whose parameters are
counted in the results. geotune uses its own decoder and data loading; the others use TerraTorch's
network and data module. LoRA has rank 16 in queries, values and the MLP; in plain peft in the
fused `qkv` layer and the MLP. Peers that are not installed are skipped with a message; peft and
torchgeo's trainer also need terratorch, which builds their network.

Measured are: the peak resident set of the process until the end of the training; the peak of live
tensors in the second step; CPU and wall seconds of the median later step, with data loading,
from the end of one optimizer step to the end of the next; wall seconds from the start of the
process to the end of the first step, with imports (for `est, cache` also with computing the
features); the size of the file that a prediction needs beside the pretrained backbone or with it,
and that of the checkpoint to resume from; and the rate of mapping one scene in windows with 50 %
overlap, for geotune with reading and writing the files, for TerraTorch without. peft and torchgeo's
trainer have no tiled inference of their own.

The contenders take turns, and the fastest of three measurements counts: other programs of the
machine can only make one slower. Results are written to `benchmarks/results/peers.json` and `.svg`,
with ratios to `terratorch full`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_leaves

from geotune.config.base import OptionsModel
from geotune.data.synthetic.synthetic_scenes import (
    CLASSES,
    labels_path,
    write_synthetic_scenes,
)
from geotune.memory.measure import peak_resident_bytes
from geotune.memory.tracker import MemoryTracker
from geotune.types import IGNORE

RESULTS = Path(__file__).parent / "results" / "peers.json"
BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
HLS_NAMES = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
CHANNELS = [256, 128, 64, 32]
LORA_RANK = 16
LEARNING_RATE = 1e-3
MEAN, STD = 0.2, 0.1  # reflectance, of every band
UNTIMED_STEPS = 2  # the first step, and the tracked one
REFERENCE = "terratorch full"
METHODS: dict[str, dict[str, Any]] = {
    "geotune full": {"method": {"kind": "full", "stem_width": 0}},
    "geotune lora": {"method": {"kind": "lora", "rank": LORA_RANK, "stem_width": 0}},
    "geotune est": {"method": {"kind": "est"}},
    "geotune est, cache": {"method": {"kind": "est"}, "train": {"cache": "disk"}},
}
PEERS: dict[str, tuple[str, ...]] = {
    "terratorch full": ("terratorch",),
    "terratorch lora": ("terratorch", "peft"),
    "peft lora": ("terratorch", "peft"),
    "torchgeo full": ("terratorch", "torchgeo"),
}
"""Packages of each contender that is not geotune."""
RATE = "mapping_mpx_per_s"
MEASURES = {
    "process_bytes": ("peak process memory", 2**20, "MiB"),
    "tensor_bytes": ("peak tensors of a step", 2**20, "MiB"),
    "step_cpu_seconds": ("CPU time of a step", 1, "s"),
    "first_step_seconds": ("start to first step", 1, "s"),
    "result_bytes": ("file to keep", 2**20, "MiB"),
    "checkpoint_bytes": ("checkpoint to resume", 2**20, "MiB"),
    RATE: ("mapping rate", 1, "Mpx/s"),
}
"""Title, divisor and unit."""
Row = dict[str, Any]


class Settings(OptionsModel):
    """What all contenders share."""

    backbone: str = "prithvi_eo_tiny"
    indices: tuple[int, ...] = (0, 1, 2, 3)
    size: int = 224
    batch_size: int = 2
    steps: int = 8
    map_size: int = 448
    threads: int = 1


FULL = {"backbone": "prithvi_eo_v1_100", "indices": (2, 5, 8, 11)}


# ---------------------------------------------------------------- measuring in a child process
class StepProbe:
    """Records the end of every optimizer step, and tracks the tensors of the second one.

    Attributes:
        ends: wall and CPU clock at the end of each step.
        tensor_bytes: None without `start_step`.
    """

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.tensor_bytes: int | None = None
        self._optimizer: Optimizer | None = None
        self._tracker: MemoryTracker | None = None
        register_optimizer_step_post_hook(self._after_step)

    def start_step(self, model: nn.Module, batch: Any) -> None:
        """Called before each step; tracks the second one."""
        torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it
        if len(self.ends) == 1:
            tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
            self._tracker = MemoryTracker(model, self._optimizer, tensors)
            self._tracker.__enter__()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._tracker is not None and self.tensor_bytes is None:
            self._tracker.__exit__(None, None, None)
            self.tensor_bytes = self._tracker.peak.total
        self._optimizer = optimizer
        self.ends.append((time.time(), time.process_time()))

    def row(self, started: float) -> Row:
        """The measurements of a finished training that started at `started`."""
        timed = self.ends[UNTIMED_STEPS:]
        gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(timed)]
        return {
            "process_bytes": peak_process_bytes(),
            "tensor_bytes": self.tensor_bytes,
            "step_cpu_seconds": statistics.median(cpu for _, cpu in gaps),
            "step_seconds": statistics.median(wall for wall, _ in gaps),
            "timed_steps": len(gaps),
            "first_step_seconds": self.ends[0][0] - started,
        }


def peak_process_bytes() -> int:
    """The peak resident set of this program; `getrusage` would include the parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return peak_resident_bytes()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def parameters(model: nn.Module) -> Row:
    """Numbers of all parameters and of trained ones."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "parameters": sum(n for n, _ in sizes),
        "trained_parameters": sum(n for n, trained in sizes if trained),
    }


@dataclass(frozen=True)
class Child:
    """One contender in its process.

    Attributes:
        started: wall clock when the process was started.
        scenes: folder of the training scenes.
        scene: the scene to map.
        work: an empty folder.
    """

    name: str
    settings: Settings
    started: float
    scenes: Path
    scene: Path
    work: Path

    def measure(self) -> Row:
        """Train and map."""
        return self._geotune() if self.name in METHODS else self._peer()

    def _geotune(self) -> Row:
        from lightning.pytorch.callbacks import LambdaCallback

        from geotune.api.fitting import fit
        from geotune.api.prediction import predict

        settings, probe = self.settings, StepProbe()
        run, checkpoint_bytes = self.work / "run", 0

        def note_checkpoint() -> None:  # the folder is removed when the run is finished
            nonlocal checkpoint_bytes
            checkpoint_bytes = size_of(run / "checkpoint" / "last.ckpt")

        recipe = geotune_recipe(self.name, settings, self.scenes, self.work)
        on_end = LambdaCallback(on_train_end=lambda trainer, module: note_checkpoint())
        summary = fit(recipe, run=run, callbacks=lambda: [on_end]).summary
        row = probe.row(self.started)
        row["tensor_bytes"] = summary["peak_memory"]["tracked_bytes"]
        row |= {
            "result_bytes": size_of(run / "adapter.safetensors") + size_of(run / "adapter.json"),
            "checkpoint_bytes": checkpoint_bytes,
            "parameters": summary["total_parameters"],
            "trained_parameters": summary["trained_parameters"],
        }
        predicted = predict(
            run, [str(self.scene)], self.work / "maps", batch_size=settings.batch_size,
            polygons=False, device="cpu",
        )  # fmt: skip
        seconds = sum(one.seconds for one in predicted)
        return row | {RATE: settings.map_size**2 / 1e6 / seconds}

    def _peer(self) -> Row:
        torch.manual_seed(0)
        data = terratorch_data(self.settings, self.scenes)
        probe = StepProbe()
        if self.name == "peft lora":
            model = self._train_plain(data, probe)
            row = probe.row(self.started) | self._plain_files(model)
        else:
            task = self._task()
            model = task.model
            trainer = self._lightning(task, data, probe)
            row = probe.row(self.started)
            whole, weights = self.work / "whole.ckpt", self.work / "weights.ckpt"
            trainer.save_checkpoint(whole)
            trainer.save_checkpoint(weights, weights_only=True)
            row |= {"result_bytes": size_of(weights), "checkpoint_bytes": size_of(whole)}
        row |= parameters(model)
        rate = self._terratorch_map(model) if self.name.startswith("terratorch") else None
        return row | {RATE: rate}

    def _task(self) -> Any:
        """The Lightning module of TerraTorch or torchgeo."""
        classes, settings = len(CLASSES), self.settings
        if self.name == "torchgeo full":
            return torchgeo_task(settings)
        from terratorch.tasks import SemanticSegmentationTask

        return SemanticSegmentationTask(
            model_args=network_options(settings, lora=self.name == "terratorch lora"),
            model_factory="EncoderDecoderFactory",
            loss="ce",
            ignore_index=IGNORE,
            lr=LEARNING_RATE,
            optimizer="AdamW",
            plot_on_val=False,
            class_names=list(CLASSES[:classes]),
        )

    def _lightning(self, task: Any, data: Any, probe: StepProbe) -> Any:
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import LambdaCallback

        def on_train_batch_start(trainer: Any, task: Any, batch: Any, index: int) -> None:
            probe.start_step(task.model, batch)

        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            precision="32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1,
            callbacks=[LambdaCallback(on_train_batch_start=on_train_batch_start)],
        )
        trainer.fit(task, datamodule=data)
        return trainer

    def _train_plain(self, data: Any, probe: StepProbe) -> Any:
        """The loop of a peft user."""
        from peft import LoraConfig, get_peft_model

        model = build_network(self.settings)
        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=["qkv", "fc1", "fc2"])
        model.encoder = get_peft_model(model.encoder, config)
        model.train()
        optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
        loss_of = nn.CrossEntropyLoss(ignore_index=IGNORE)
        data.setup("fit")
        for loaded in data.train_dataloader():
            batch = data.aug({k: loaded[k] for k in ("image", "mask")})
            probe.start_step(model, batch)
            optimizer.zero_grad()
            loss_of(model(batch["image"]).output, batch["mask"].long()).backward()
            optimizer.step()
        torch.save(optimizer.state_dict(), self.work / "optimizer.pt")
        return model

    def _plain_files(self, model: Any) -> Row:
        """The adapter with the other trained layers, and with the optimizer's state."""
        kept = self.work / "adapter"
        model.encoder.save_pretrained(kept)
        rest = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.")}
        torch.save(rest, kept / "decoder.pt")
        result = size_of(kept)
        whole = result + size_of(self.work / "optimizer.pt")
        return {"result_bytes": result, "checkpoint_bytes": whole}

    def _terratorch_map(self, model: nn.Module) -> float:
        """Megapixels per second of TerraTorch's tiled inference, without files."""
        from terratorch.tasks.tiled_inference import tiled_inference

        settings = self.settings
        image = torch.rand(1, len(BANDS), settings.map_size, settings.map_size)
        started = time.perf_counter()
        with torch.inference_mode():
            tiled_inference(
                lambda x: model.eval()(x).output,
                image,
                crop=settings.size,
                stride=settings.size // 2,
                batch_size=settings.batch_size,
            )
        return settings.map_size**2 / 1e6 / (time.perf_counter() - started)


def geotune_recipe(name: str, settings: Settings, scenes: Path, work: Path) -> Row:
    """The recipe of one of `METHODS`, as sections."""
    count = settings.steps * settings.batch_size
    names = [f"scene_{i:03d}" for i in range(count + settings.batch_size)]
    changed = METHODS[name]
    return {
        "backbone": {
            "name": f"terratorch/{settings.backbone}",
            "pretrained": False,
            "bands": list(BANDS),
        },
        "method": changed["method"],
        "decoder": {"kind": "unet", "channels": CHANNELS},
        "task": {"kind": "segment", "classes": list(CLASSES), "loss": "ce"},
        "data": {
            "kind": "scenes",
            "scenes": str(scenes / "scene_???.tif"),
            "labels": str(scenes / "{stem}_labels.tif"),
            "window": settings.size,
            "replacement": False,
            "rare_class_fraction": 0,
            "augment": False,
            "brightness": 0,
            "normalize": {band: [MEAN, STD] for band in BANDS},
            "split": {"kind": "list", "train": names[:count], "val": names[count:]},
        },
        "train": {
            "epochs": 1,
            "batch_size": settings.batch_size,
            "lr": LEARNING_RATE,
            "precision": "32-true",
            "accelerator": "cpu",
            "cache_folder": str(work / "cache"),
            **changed.get("train", {}),
        },
    }


# ---------------------------------------------------------------- the peers' network and data
def network_options(settings: Settings, *, lora: bool = False) -> Row:
    """Options of TerraTorch's `EncoderDecoderFactory`."""
    options: Row = {
        "backbone": settings.backbone,
        "backbone_kwargs": {"pretrained": False, "num_frames": 1, "bands": list(HLS_NAMES)},
        "necks": [
            {"name": "SelectIndices", "indices": list(settings.indices)},
            {"name": "ReshapeTokensToImage"},
            {"name": "LearnedInterpolateToPyramidal"},
        ],
        "decoder": "UNetDecoder",
        "decoder_kwargs": {"channels": CHANNELS},
        "num_classes": len(CLASSES),
    }
    if lora:
        targets = ["q_linear", "v_linear", "fc1", "fc2"]
        ranks = {"r": LORA_RANK, "lora_alpha": LORA_RANK, "target_modules": targets}
        options["peft_config"] = {
            "method": "LORA",
            "replace_qkv": "qkv",
            "peft_config_kwargs": ranks,
        }
    return options


def build_network(settings: Settings) -> Any:
    """TerraTorch's network."""
    from terratorch.models import EncoderDecoderFactory

    return EncoderDecoderFactory().build_model(task="segmentation", **network_options(settings))


def torchgeo_task(settings: Settings) -> Any:
    """torchgeo's trainer with TerraTorch's network."""
    from torchgeo.trainers import SemanticSegmentationTask

    class Task(SemanticSegmentationTask):
        def configure_models(self) -> None:
            self.model = build_network(settings)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(x).output
            return logits

    return Task(
        in_channels=len(BANDS), num_classes=len(CLASSES), loss="ce", ignore_index=IGNORE,
        lr=LEARNING_RATE,
    )  # fmt: skip


def terratorch_data(settings: Settings, scenes: Path) -> Any:
    """TerraTorch's data module for the scenes; the last batch validates."""
    from terratorch.datamodules import GenericNonGeoSegmentationDataModule

    count = settings.steps * settings.batch_size
    names = [f"scene_{i:03d}" for i in range(count + settings.batch_size)]
    lists = {"train": names[:count], "val": names[count:]}
    for split, chosen in lists.items():
        (scenes / f"{split}.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return GenericNonGeoSegmentationDataModule(
        batch_size=settings.batch_size,
        num_workers=0,
        num_classes=len(CLASSES),
        train_data_root=scenes,
        val_data_root=scenes,
        test_data_root=scenes,
        train_split=scenes / "train.txt",
        val_split=scenes / "val.txt",
        test_split=scenes / "val.txt",
        img_grep="scene_???.tif",
        label_grep="scene_*_labels.tif",
        constant_scale=1e-4,
        no_data_replace=0,
        no_label_replace=IGNORE,
        means=[MEAN] * len(BANDS),
        stds=[STD] * len(BANDS),
        rgb_indices=[2, 1, 0],
    )


# ---------------------------------------------------------------- all contenders
def missing_packages(name: str) -> list[str]:
    """Packages of a contender that are not installed."""
    packages = PEERS.get(name, ("terratorch",))  # which builds Prithvi for geotune too
    return [package for package in packages if find_spec(package) is None]


def run_child(name: str, settings: Settings, folder: Path, script: Path = Path(__file__)) -> Row:
    """Measure a contender in a process of its own; raises `SystemExit` if it fails."""
    work = Path(tempfile.mkdtemp(dir=folder))
    out, log = work / "row.json", work / "log.txt"
    threads = str(settings.threads)
    arguments = {
        "name": name,
        "settings": settings.model_dump(),
        "started": time.time(),
        "scenes": str(folder / "scenes"),
        "scene": str(folder / "map" / "scene_000.tif"),
        "work": str(work),
    }
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, str(script), "--child", json.dumps(arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{log.read_text(encoding='utf-8')[-4000:]}")
    row: Row = json.loads(out.read_text(encoding="utf-8"))
    return row


def child_main(text: str) -> None:
    """Measure one contender and write its row."""
    warnings.filterwarnings("ignore")
    given = json.loads(text)
    child = Child(
        name=given["name"],
        settings=Settings(**given["settings"]),
        started=given["started"],
        scenes=Path(given["scenes"]),
        scene=Path(given["scene"]),
        work=Path(given["work"]),
    )
    torch.set_num_threads(child.settings.threads)
    row = {"name": child.name} | child.measure()
    (child.work / "row.json").write_text(json.dumps(row), encoding="utf-8")


def best_of(one: Row, other: Row) -> Row:
    """The fastest times and the highest rate of two measurements; what is not a time stays."""
    pick = {name: min for name in one if name.endswith("seconds")} | {RATE: max}
    return one | {
        name: choose(one[name], other[name])
        for name, choose in pick.items()
        if one.get(name) is not None
    }


def with_ratios(rows: list[Row]) -> list[Row]:
    """The rows with each measure relative to `REFERENCE`."""
    reference = next((row for row in rows if row["name"] == REFERENCE), {})

    def ratio(row: Row, measure: str) -> float | None:
        mine, base = row.get(measure), reference.get(measure)
        return mine / base if mine is not None and base else None

    measures = [*MEASURES, "step_seconds"]
    return [row | {"ratios": {m: ratio(row, m) for m in measures}} for row in rows]


def write(
    path: Path, rows: list[Row], skipped: dict[str, str], settings: Settings, turns: int
) -> None:
    """Write the JSON file and the plot."""
    packages = ("torch", "lightning", "terratorch", "peft", "torchgeo", "timm")
    result = {
        "what": "geotune beside its peers: memory, time and files of the same training",
        "date": date.today().isoformat(),
        "settings": settings.model_dump() | {"precision": "32-true", "decoder_channels": CHANNELS},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages if find_spec(name)},
        "turns": turns,
        "relative_to": REFERENCE,
        "skipped": skipped,
        "rows": with_ratios(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(path.with_suffix(".svg"), rows, settings)


def draw(path: Path, rows: list[Row], settings: Settings) -> None:
    """Plot a panel of bars per measure."""
    figure = Figure(figsize=(13, 1.6 + 0.5 * len(rows)), layout="constrained")
    names = [row["name"] for row in rows]
    colors = ["#e07b26" if name.startswith("geotune") else "#3b82d6" for name in names]
    for i, (measure, (title, divisor, unit)) in enumerate(MEASURES.items()):
        axes = figure.add_subplot(2, 4, i + 1)
        values = [(row[measure] or 0) / divisor for row in rows]
        bars = axes.barh(names, values, color=colors)
        texts = [f" {v:,.0f}" if v >= 100 else f" {v:.3g}" if v else " –" for v in values]
        axes.bar_label(bars, texts, fontsize=7)
        axes.set_title(f"{title}, {unit}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.2)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{settings.backbone}, UNet, batch {settings.batch_size} at {settings.size} pixels, "
        f"float32, {settings.threads} CPU thread(s)",
        fontsize=10,
    )
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


def compare(
    names: list[str],
    settings: Settings,
    results: Path,
    measure: Callable[[str, Settings, Path], Row] = run_child,
    turns: int = 1,
) -> None:
    """Measure the contenders in turn, and write the results after each."""
    rows: dict[str, Row] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = (settings.steps + 1) * settings.batch_size
        paths = write_synthetic_scenes(folder / "scenes", count, settings.size, bands=BANDS)
        assert all(labels_path(path).is_file() for path in paths)
        write_synthetic_scenes(folder / "map", 1, settings.map_size, bands=BANDS)
        for name in names:
            if missing := missing_packages(name):
                skipped[name] = f"not installed: {', '.join(missing)}"
                print(f"{name}: skipped, {skipped[name]}", flush=True)
        for turn in range(turns):
            for name in (name for name in names if name not in skipped):
                row = measure(name, settings, folder)
                rows[name] = row if turn == 0 else best_of(rows[name], row)
                print(json.dumps(row), flush=True)
                write(results, [*rows.values()], skipped, settings, turn + 1)
    if not rows:
        print("nothing measured: pip install 'geotune[terratorch,torchgeo]'")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    everyone = [*METHODS, *PEERS]
    parser.add_argument("--full", action="store_true", help="Prithvi 1.0 100M instead of tiny")
    parser.add_argument("--contenders", nargs="+", default=everyone, choices=everyone, metavar="C")
    parser.add_argument("--steps", type=int, default=8, help="training steps, at least 4")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child_main(options.child)
        return
    if options.steps < UNTIMED_STEPS + 2:
        raise SystemExit(f"--steps {options.steps}: expected at least {UNTIMED_STEPS + 2}")
    size = FULL if options.full else {}
    settings = Settings(steps=options.steps, threads=options.threads, **size)
    compare(options.contenders, settings, options.results, turns=options.turns)


if __name__ == "__main__":
    main()
