"""Whether the novelty of `geotune predict --novelty` is larger in harbours that were never seen.

    python benchmarks/novelty.py [folder of the ship scenes] [folder of the cloud scenes]

Each of eight harbours is cut from west to east into a part for training (half), one for validation
(a fifth) and one for the comparison. Models are trained on four harbours, and on the other four:
the windows of each comparison part are once those of a seen and once of an unseen harbour, so that
what makes a harbour unusual by itself cancels. AUC is the probability that a window of an unseen
harbour is farther than one of a seen harbour in the same model, averaged over the two models; its
interval is that of a bootstrap over harbours. As a check, cloud scenes of Landsat and Sentinel-2
with the mean and deviation of the training bands.
Writes `benchmarks/results/novelty.json`. Takes about ten minutes on one core.
"""

from __future__ import annotations

import json
import platform
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

import geotune
from geotune.adapter_config import load_adapter_config
from geotune.api.novelty import load_novelty
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import grid_windows
from geotune.factory.build_model import load_adapter
from geotune.hub.download import AdapterSource
from geotune.inference.novelty import window_features

RESULTS = Path(__file__).parent / "results" / "novelty.json"
BANDS = ["B02", "B03", "B04", "B08", "B11"]
PARTS = {"train": (0.0, 0.5), "val": (0.5, 0.7), "compared": (0.7, 1.0)}
WINDOW = 128
METHODS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "est": ({"kind": "est", "reduction": 4}, {"epochs": 2, "samples": 64}),
    "frozen": ({"kind": "frozen"}, {"epochs": 1, "samples": 8}),  # its features do not change
}
"""Each method, and how long it trains."""
REPEATS = 2000
Floats = NDArray[np.float64]


def cut(scene: Path, folder: Path) -> None:
    """Write the parts of a harbour, `<harbour>_<part>.tif`."""
    with rasterio.open(scene) as file:
        for part, (start, end) in PARTS.items():
            left, right = (round(share * file.width) for share in (start, end))
            window = RasterWindow(left, 0, right - left, file.height)
            profile = file.profile | {
                "width": right - left,
                "transform": file.window_transform(window),
            }
            with rasterio.open(folder / f"{scene.stem}_{part}.tif", "w", **profile) as out:
                out.write(file.read(window=window))
                out.descriptions = file.descriptions


def recipe(parts: Path, seen: list[str], name: str) -> dict[str, Any]:
    """A short training on the seen harbours."""
    method, train = METHODS[name]
    return {
        "backbone": {"name": "geotune/convnext_mini", "bands": BANDS},
        "method": method,
        "decoder": {"kind": "fcn", "channels": 32, "depth": 1},
        "task": {"kind": "segment", "classes": ["background", "ship"]},
        "data": {
            "kind": "scenes",
            "scenes": [str(parts / f"{name}_{part}.tif") for name in seen for part in PARTS],
            "labels": f"{parts}/{{stem}}.geojson",
            "window": WINDOW,
            "samples": train["samples"],
            "split": {
                "kind": "list",
                "train": [f"{name}_train" for name in seen],
                "val": [f"{name}_val" for name in seen],
                "test": [f"{name}_compared" for name in seen],
            },
        },
        "train": {
            "epochs": train["epochs"],
            "batch_size": 8,
            "lr": 3e-3,
            "accelerator": "cpu",
            "loggers": [],
        },
    }


def distances(run: Path, images: list[NDArray[np.float32]]) -> tuple[Floats, Floats]:
    """Percentile and distance of windows `(C, h, w)`; distances compare within a model only."""
    config, built = load_adapter_config(run), load_adapter(run)
    reference = load_novelty(AdapterSource(run), config)
    encoder = built.model.encoder
    skip = len(encoder.taps) - len(encoder.reader.taps)
    found = []
    with torch.no_grad():
        for start in range(0, len(images), 8):
            batch = torch.from_numpy(np.stack(images[start : start + 8]))
            maps, _ = built.model.encode(batch)
            found.append(reference.distances(window_features(maps, batch, skip)))
    values = torch.cat(found).numpy()
    return reference.percentile(values).astype(float), values.astype(float)


def windows(source: RasterSource) -> list[NDArray[np.float32]]:
    """The windows of an image that are at least half data."""
    every = [source.read(window) for window in grid_windows(source.shape, WINDOW)]
    return [image for image in every if has_data(image).mean() >= 0.5]


def cloud_windows(folder: Path, run: Path) -> list[NDArray[np.float32]]:
    """Windows of the cloud scenes with the mean and deviation of the training bands."""
    images = load_adapter_config(run).prediction.images
    assert images is not None
    found = []
    for path in sorted(folder.glob("*.tif")):
        if path.stem.endswith("_mask"):
            continue
        with rasterio.open(path) as file:
            pixels = file.read([1, 2, 3, 4, 5]).astype(np.float32)
        mean, std = (f(pixels, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
        to_mean, to_std = (
            np.array(x, np.float32)[:, None, None] for x in (images.mean, images.std)
        )
        pixels = (pixels - mean) / std * to_std + to_mean
        for window in grid_windows((pixels.shape[1], pixels.shape[2]), WINDOW):
            found.append(pixels[:, window.row :, window.col :][:, :WINDOW, :WINDOW].copy())
    return found


def auc(far: Floats, near: Floats) -> float:
    """The probability that a value of `far` is larger than one of `near`; equal ones count half."""
    difference = far[:, None] - near[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


Fold = tuple[dict[str, Floats], dict[str, Floats]]
"""Distances by harbour of one model: of unseen and of seen harbours."""


def over_harbours(folds: list[Fold]) -> tuple[float, tuple[float, float]]:
    """AUC within each model, averaged, and its 95 % interval of a bootstrap over harbours."""

    def of(names: list[list[list[str]]]) -> float:
        values = [
            auc(
                *(
                    np.concatenate([part[n] for n in chosen])
                    for part, chosen in zip(*pair, strict=True)
                )
            )
            for pair in zip(folds, names, strict=True)
        ]
        return float(np.mean(values))

    every = [[sorted(part) for part in fold] for fold in folds]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(REPEATS):
        # a harbour is unseen in one model and seen in the other
        first, second = (list(rng.choice(names, len(names))) for names in every[0])
        draws.append(of([[first, second], [second, first]]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return of(every), (float(low), float(high))


def measure(method: str, parts: Path, ships: Path, clouds: Path, runs: Path) -> dict[str, Any]:
    """The comparison for one method."""
    harbours = sorted(path.stem for path in ships.glob("*.tif"))
    folds: list[Fold] = []
    shares: dict[str, list[float]] = {"seen": [], "unseen": [], "clouds": []}
    strange: list[float] = []
    by_harbour: dict[str, dict[str, float]] = {name: {} for name in harbours}
    metrics = []
    for number, fold in enumerate((harbours[::2], harbours[1::2])):
        run = runs / f"{method}_{number}"
        metrics.append(geotune.fit(recipe(parts, fold, method), run=run).metrics["miou"])
        unseen: dict[str, Floats] = {}
        seen: dict[str, Floats] = {}
        for name in harbours:
            kind = "seen" if name in fold else "unseen"
            share, distance = distances(run, windows(open_raster(parts / f"{name}_compared.tif")))
            (seen if kind == "seen" else unseen)[name] = distance
            shares[kind] += share.tolist()
            by_harbour[name][kind] = float(np.median(share))
        folds.append((unseen, seen))
        share, distance = distances(run, cloud_windows(clouds, run))
        shares["clouds"] += share.tolist()
        strange.append(auc(distance, np.concatenate([*seen.values()])))
    value, interval = over_harbours(folds)
    return {
        "auc_unseen_harbours": value,
        "auc_interval": interval,
        "auc_by_model": [
            auc(*(np.concatenate([*part.values()]) for part in fold)) for fold in folds
        ],
        "auc_clouds": float(np.mean(strange)),
        "median_percentile": {key: float(np.median(values)) for key, values in shares.items()},
        "share_beyond_95": {
            key: float((np.array(values) > 0.95).mean()) for key, values in shares.items()
        },
        "median_percentile_by_harbour": by_harbour,
        "harbours_farther_unseen": sum(
            each["unseen"] > each["seen"] for each in by_harbour.values()
        ),
        "windows": sum(map(len, folds[0][0].values())) + sum(map(len, folds[0][1].values())),
        "validation_miou": metrics,
    }


def main() -> None:
    """Train, compare and write the results."""
    data = Path(__file__).parents[2] / "shared" / "data"
    ships = Path(sys.argv[1]) if len(sys.argv) > 1 else data / "ships"
    clouds = Path(sys.argv[2]) if len(sys.argv) > 2 else data / "clouds"
    with TemporaryDirectory() as folder:
        parts, runs = (Path(folder) / name for name in ("parts", "runs"))
        parts.mkdir()
        for scene in sorted(ships.glob("*.tif")):
            cut(scene, parts)
            for part in PARTS:
                name = f"{scene.stem}_{part}.geojson"
                (parts / name).write_bytes(scene.with_suffix(".geojson").read_bytes())
        results: dict[str, Any] = {}
        for method in METHODS:
            results[method] = measure(method, parts, ships, clouds, runs)
            print(method, json.dumps(results[method], indent=2))
    about = {"date": date.today().isoformat(), "geotune": geotune.__version__}
    about |= {"machine": platform.machine(), "torch": torch.__version__}
    RESULTS.write_text(json.dumps({**about, "methods": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
