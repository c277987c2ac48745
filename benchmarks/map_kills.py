"""`geotune map` survives kills: the files are those of an unbroken run; and two workers scale.

    python benchmarks/map_kills.py                            # 2,000 tiles, 8 workers, 50 kills
    python benchmarks/map_kills.py --tiles 60 --workers 3 --kills 6 --no-throughput

Scenes are noise, the model is a small vision transformer with random weights: what counts is that
nothing is lost, computed twice or different. At random moments a worker, the process that forks
workers, or the driver is killed (SIGKILL); a killed driver is started again with the same command.
At the end, all hashes have to be those of a run without kills, finished tiles must not have been
written again, and no temporary file may be left.

The throughput is that of two workers of one driver, compared with the sum of two single workers:
each alone on the machine, and both at once as drivers of their own (`--shard`). Rates are tiles per
second between the first and the last tile, without the start. They mean something on an idle
machine only: where other programs compete, Linux shares the cores by session (autogroup), and two
drivers are two sessions. Results are written to `benchmarks/results/map_kills.json`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "map_kills.json"
BANDS = ("red", "green", "nir")
SECONDS_TO_END = 30.0
"""Longest time that the workers of a killed driver may live."""
VOLATILE = ("_item.json", ".part")
"""Files that state when they were written."""


def make_inputs(folder: Path, tiles: int, side: int, seed: int = 0) -> int:
    """Write scenes of at least `tiles` tiles and an adapter; returns the number of tiles."""
    import numpy as np
    import rasterio

    rng = np.random.default_rng(seed)
    scenes = 5
    rows = max(1, int((tiles / scenes) ** 0.5))
    columns = -(-tiles // (scenes * rows))
    (folder / "scenes").mkdir(parents=True)
    for number in range(scenes):
        shape = (rows * side, columns * side)
        coarse = rng.normal(size=(len(BANDS), shape[0] // 16, shape[1] // 16))
        image = np.kron(coarse, np.ones((1, 16, 16))) * 100 + 500
        with rasterio.open(
            folder / "scenes" / f"s{number}.tif", "w", driver="GTiff", count=len(BANDS),
            height=shape[0], width=shape[1], dtype="float32", crs="EPSG:32633", tiled=True,
            transform=rasterio.transform.from_origin(5e5 + number * 2e4, 5e6, 10, 10),
        ) as file:  # fmt: skip
            file.write((image + 30 * rng.normal(size=image.shape)).astype(np.float32))
            file.descriptions = BANDS
    make_adapter(folder / "run")
    total: int = scenes * rows * columns
    return total


def make_adapter(folder: Path) -> None:
    """Save the adapter of an untrained model, as after a training."""
    from geotune.config import parse_recipe
    from geotune.factory.build_model import build_training
    from geotune.factory.save_model import save_model
    from geotune.types import BandStatistics

    recipe = parse_recipe(
        {
            "backbone": {"name": "timm/test_vit", "pretrained": False, "bands": list(BANDS)},
            "method": {"kind": "est", "min_width": 8, "stem_width": 0},
            "decoder": {"kind": "linear"},
            "task": {"kind": "segment", "classes": ["land", "water"]},
            "data": {
                "kind": "scenes", "scenes": "s.tif", "labels": "l.tif", "window": 64,
                "split": {"kind": "random"},
            },
        }
    )  # fmt: skip
    built = build_training(recipe, BandStatistics(BANDS, (500.0,) * 3, (100.0,) * 3, 9))
    save_model(folder, built, recipe)


def start(inputs: Path, out: Path, workers: int, side: int, *more: str) -> subprocess.Popen[bytes]:
    """Start the command."""
    sources = str(Path(__file__).resolve().parents[1] / "src")
    paths = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH", "")]))
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable, "-m", "geotune", "--quiet", "map", str(inputs / "run"),
                "--scenes", str(inputs / "scenes" / "*.tif"), "--out", str(out),
                "--workers", str(workers), "--tile", str(side), "--overlap", "0.25",
                "--device", "cpu", *more,
            ],
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def finished(running: subprocess.Popen[bytes], out: Path) -> None:
    """Wait for a command that must succeed."""
    if running.wait():
        log = (out.parent / f"{out.name}.log").read_text()
        raise RuntimeError(f"geotune map failed with {running.returncode}: {log[-2000:]}")


def hashes(out: Path) -> dict[str, str]:
    """The SHA-256 of every file of tiles and scenes that does not state its time."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("tiles", "scenes")
        for path in sorted((out / folder).rglob("*"))
        if path.is_file() and not path.name.endswith(VOLATILE)
    }


def done_tiles(out: Path) -> dict[str, int]:
    """When each tile that is done was written, in ns."""
    times = {}
    for state in (out / "tiles").glob("*/*.json"):
        tile = state.with_suffix(".tif")
        if not state.name.startswith(".") and tile.exists():
            times[tile.relative_to(out).as_posix()] = tile.stat().st_mtime_ns
    return times


def children(parent: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def kill(
    running: subprocess.Popen[bytes], victim: str, rng: random.Random
) -> tuple[str, list[int]] | None:
    """Kill a process of a command: which kind it was, and those that have to end with it."""
    forkers = children(running.pid)
    workers = [worker for forker in forkers for worker in children(forker)]
    if victim == "driver":
        running.kill()
        running.wait()
        return "driver", [*forkers, *workers]
    chosen = workers if victim == "worker" else forkers
    if not chosen:
        return None
    try:
        os.kill(rng.choice(chosen), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim, []


def wait_for_end(processes: list[int]) -> float:
    """Seconds until processes have ended. Raises `RuntimeError` if they do not."""
    started = time.monotonic()
    while any(Path(f"/proc/{one}").exists() for one in processes):
        if time.monotonic() - started > SECONDS_TO_END:
            raise RuntimeError("workers outlived their driver")
        time.sleep(0.01)
    return time.monotonic() - started


def with_kills(
    inputs: Path, out: Path, workers: int, side: int, tiles: int, kills: int, seed: int
) -> dict[str, Any]:
    """Map with kills at random moments; returns what was killed."""
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0, tiles) for _ in range(kills))
    counts = {"worker": 0, "forker": 0, "driver": 0}
    written: dict[str, int] = {}
    rewritten = 0
    longest = 0.0
    running = start(inputs, out, workers, side)
    while sum(counts.values()) < kills:
        if running.poll() is not None:
            finished(running, out)
            raise RuntimeError(f"finished after {sum(counts.values())} of {kills} kills")
        now = done_tiles(out)
        rewritten += sum(written[name] != now.get(name) for name in written)
        written = now
        if len(now) < moments[sum(counts.values())]:
            time.sleep(0.02)
            continue
        time.sleep(rng.uniform(0, 0.2))
        victim = rng.choices(("worker", "forker", "driver"), (0.75, 0.05, 0.2))[0]
        result = kill(running, victim, rng)
        if result is None:
            time.sleep(0.05)
            continue
        counts[result[0]] += 1
        if result[0] == "driver":
            longest = max(longest, wait_for_end(result[1]))
            running = start(inputs, out, workers, side)
    finished(running, out)
    now = done_tiles(out)
    rewritten += sum(written[name] != now.get(name) for name in written)
    return {
        "kills": counts,
        "finished_tiles_written_again": rewritten,
        "temporary_files_left": len([p for p in out.rglob(".*") if p.name != ".lock"]),
        "seconds_until_workers_ended_longest": round(longest, 2),
    }


def check_kills(
    folder: Path, *, tiles: int, workers: int, kills: int, side: int = 64, seed: int = 0
) -> dict[str, Any]:
    """Compare a map with kills with one without."""
    total = make_inputs(folder / "inputs", tiles, side)
    started = time.monotonic()
    whole = folder / "whole"
    finished(start(folder / "inputs", whole, workers, side), whole)
    unbroken = time.monotonic() - started
    started = time.monotonic()
    result = with_kills(folder / "inputs", folder / "killed", workers, side, total, kills, seed)
    expected, found = hashes(whole), hashes(folder / "killed")
    return {
        "tiles": total,
        "workers": workers,
        **result,
        "files": len(expected),
        "files_lost": len(expected.keys() - found.keys()),
        "files_more": len(found.keys() - expected.keys()),
        "files_different": sum(found.get(n, h) != h for n, h in expected.items()),
        "seconds_unbroken": round(unbroken, 1),
        "seconds_with_kills": round(time.monotonic() - started, 1),
    }


def is_intact(result: dict[str, Any]) -> bool:
    """Whether the kills changed nothing."""
    return not any(
        result[name]
        for name in (
            "files_lost", "files_more", "files_different", "finished_tiles_written_again",
            "temporary_files_left",
        )
    )  # fmt: skip


def rate(outs: list[Path]) -> float:
    """Tiles per second of runs at the same time, between the first and the last tile."""
    total = 0.0
    for out in outs:
        times = sorted(done_tiles(out).values())
        total += (len(times) - 1) / (times[-1] - times[0]) * 1e9
    return total


def throughput(folder: Path, repeats: int, tiles: int, side: int = 256) -> dict[str, Any]:
    """Rates of one worker, two workers, and two drivers with one worker each."""
    make_inputs(folder / "inputs", tiles, side)
    rates: dict[str, list[float]] = {"single": [], "two": [], "separate": []}
    for repeat in range(repeats):
        for name, parts in (
            ("single", [(1, "0/2")]),
            ("two", [(2, "0/1")]),
            ("separate", [(1, "0/2"), (1, "1/2")]),
        ):
            outs = [folder / f"{name}{repeat}_{i}" for i in range(len(parts))]
            running = [
                start(folder / "inputs", out, workers, side, "--shard", shard)
                for out, (workers, shard) in zip(outs, parts, strict=True)
            ]
            for process, out in zip(running, outs, strict=True):
                finished(process, out)
            rates[name].append(rate(outs))
            for out in outs:
                shutil.rmtree(out)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "tiles": tiles,
        "tile": side,
        "repeats": repeats,
        "tiles_per_second": {name: [round(x, 3) for x in each] for name, each in rates.items()},
        "two_over_sum_of_two_single": round(middle["two"] / (2 * middle["single"]), 3),
        "two_over_separate": round(middle["two"] / middle["separate"], 3),
    }


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="of the throughput")
    parser.add_argument("--speed-tiles", type=int, default=60, help="of the throughput")
    parser.add_argument("--kill-test", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--throughput", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    intact = True
    with tempfile.TemporaryDirectory() as folder:
        if args.kill_test:
            kills = check_kills(
                Path(folder, "kills"), tiles=args.tiles, workers=args.workers, kills=args.kills,
                seed=args.seed,
            )  # fmt: skip
            intact = is_intact(kills)
            report("kills", {"seed": args.seed, **kills, "intact": intact}, args.tiles >= 2000)
        if args.throughput:
            speed = throughput(Path(folder, "speed"), args.repeats, args.speed_tiles)
            report("throughput", speed, args.repeats >= 3)
    return int(not intact)


def report(part: str, values: dict[str, Any], full: bool) -> None:
    """Print a part of the results, and keep it if it is of full size."""
    print(json.dumps({part: values}, indent=1), flush=True)
    if not full:
        return
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    record["what"] = "geotune map with SIGKILLs against an unbroken run; rate of two workers"
    record[part] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"system": platform.system(), "processor": platform.machine(),
                    "cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()]},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "rasterio")},
        **values,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    sys.exit(main())
