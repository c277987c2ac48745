"""Time and memory of mapping with 1, 3 and 10 runs over one pass of their backbone.

    python benchmarks/several_runs.py

The runs of a network have one frozen backbone and adapters (random weights) of three tasks in turn:
class maps, numbers, objects. `together` computes the tile of a scene as a worker of
`geotune map A B C` does: reading, one pass, all side networks and decoders, blending, writing.
`one by one` loads and computes one run after the other, as a worker of `geotune map A`, then B,
does. Each side runs in a process of its own, on one thread; the times are CPU seconds, without
loading, of the faster of two tiles, because other processes share the machine. Peak memory is the
resident memory of the process; one by one that of a process with one run. Results are written to
`benchmarks/results/several_runs.json`.
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
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "several_runs.json"
BANDS = ["red", "green", "nir"]
COUNTS = (1, 3, 10)
SIZE, WINDOW, BATCH = 512, 224, 8
LINEAR = {"kind": "linear"}
UNET = {"kind": "unet", "channels": [64, 32, 16, 16]}
FCOS = {"kind": "fcos", "channels": 64, "depth": 2}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ConvNeXt mini, EST, linear": ("geotune/convnext_mini", LINEAR),
    "ViT-S/16, EST, linear": ("timm/vit_small_patch16_224", LINEAR),
    "ViT-S/16, EST, UNet": ("timm/vit_small_patch16_224", UNET),
}
"""The backbone, and the decoder of maps; that of objects is FCOS."""
TASKS: list[dict[str, Any]] = [
    {"kind": "segment", "classes": ["background", "field", "forest"]},
    {"kind": "regress", "quantity": "height", "mean": 5, "std": 2},
    {"kind": "detect", "classes": ["ship"], "boxes": "horizontal"},
]


def build(network: str, folder: Path, count: int) -> None:
    """Write the adapters of the runs, and the plans of their maps."""
    import torch

    from geotune.config import parse_recipe
    from geotune.factory.build_model import build_training
    from geotune.factory.save_model import save_model
    from geotune.types import BandStatistics

    backbone, decoder = NETWORKS[network]
    statistics = BandStatistics(tuple(BANDS), (2000.0,) * 3, (1000.0,) * 3, 9)
    for number in range(count):
        torch.manual_seed(number)
        task = TASKS[number % len(TASKS)]
        recipe = parse_recipe(
            {
                "backbone": {"name": backbone, "pretrained": False, "bands": BANDS},
                "method": {"kind": "est"},
                "decoder": FCOS if task["kind"] == "detect" else decoder,
                "task": task,
                "data": {
                    "kind": "scenes", "scenes": "x/*.tif", "labels": "{stem}.tif",
                    "window": WINDOW, "split": {"kind": "random"},
                },
                "train": {"precision": "32-true"},
            }
        )  # fmt: skip
        built = build_training(recipe, statistics)
        save_model(folder / f"run{number}", built, recipe)


def plan(folder: Path, scene: Path, count: int) -> list[dict[str, Any]]:
    """The options of the worker's runs."""
    from geotune.api.predict_options import LoadOptions, PredictOptions
    from geotune.mapping.options import MapOptions
    from geotune.mapping.prepare import prepare
    from geotune.mapping.store import open_store
    from geotune.mapping.work import MapFolder
    from geotune.utils.progress import ignore_progress

    predict = PredictOptions(batch_size=BATCH, overlap=0.25)
    options = MapOptions(predict=predict, tile=SIZE, device="cpu")
    runs = []
    for name in (f"run{number}" for number in range(count)):
        store = open_store(str(folder / "maps" / name))
        of_run = prepare(
            folder / name, [str(scene)], store, options, LoadOptions(), ignore_progress
        )
        runs.append(asdict(MapFolder(name, folder / name, store, of_run, options).as_values()))
    return runs


def measure(side: str, folder: Path, count: int) -> dict[str, Any]:
    """Compute the tile of the scene in this process."""
    from scene_memory import peak_bytes

    from geotune.api.predict_options import LoadOptions
    from geotune.mapping.options import plain_files
    from geotune.mapping.tile_group import TileGroup
    from geotune.mapping.workers import WorkerOptions

    values = json.loads((folder / "runs.json").read_text())[:count]
    groups = [values] if side == "together" else [[each] for each in values]
    seconds = []
    for runs in groups:
        options = {"runs": runs, "files": plain_files(LoadOptions())}
        group = TileGroup(WorkerOptions.from_values(options))
        times = []
        for _ in range(2):
            started = time.process_time()
            result = group.run_tile(0, range(len(runs)))
            times.append(time.process_time() - started)
            assert not result["failed"], result
        seconds.append(min(times))
        del group
    return {"cpu_seconds": seconds, "peak_bytes": peak_bytes()}


def in_own_process(side: str, network: str, folder: Path, count: int) -> Any:
    """Run a step of this script in a new process; returns its last line."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--network", network, "--folder", str(folder),
         "--count", str(count)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.strip().rpartition("\n")[2] or "null")


def compare(network: str) -> list[dict[str, Any]]:
    """The rows of a network."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_own_process("build", network, folder, max(COUNTS))
        alone = in_own_process("one by one", network, folder, max(COUNTS))["cpu_seconds"]
        single = 0  # peak memory of a process with one run
        for count in COUNTS:
            together = in_own_process("together", network, folder, count)
            [seconds], one_by_one = together["cpu_seconds"], sum(alone[:count])
            single = single or together["peak_bytes"]
            rows.append(
                {
                    "network": network,
                    "runs": count,
                    "together_cpu_seconds": round(seconds, 2),
                    "one_by_one_cpu_seconds": round(one_by_one, 2),
                    "time_ratio": round(seconds / one_by_one, 3),
                    "together_peak_bytes": together["peak_bytes"],
                    "one_by_one_peak_bytes": single,
                    "memory_ratio": round(together["peak_bytes"] / single, 3),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sides = ("build", "together", "one by one")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "build":
        from scene_memory import make_scene

        scene = options.folder / "scene.tif"
        make_scene(scene, SIZE)
        build(options.network, options.folder, options.count)
        runs = plan(options.folder, scene, options.count)
        (options.folder / "runs.json").write_text(json.dumps(runs))
        return
    if options.side:
        print(json.dumps(measure(options.side, options.folder, options.count)))
        return
    rows = [row for network in NETWORKS for row in compare(network)]
    record = {
        "scene": SIZE,
        "window": WINDOW,
        "overlap": 0.25,
        "batch_size": BATCH,
        "threads": 1,
        "rows": rows,
        "versions": {name: version(name) for name in ("geotune", "torch", "timm")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
