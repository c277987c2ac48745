"""Pretrain the backbone of the package, `geotune/convnext_mini`, by distillation.

The student learns the feature maps of two frozen teachers on unlabelled crops: Galileo-nano
(Sentinel-2 bands) and MobileNetV2 (ImageNet; any three bands). It sees the crops with random bands
left out and random brightness and contrast, the teachers see all bands: it learns features that
hold for any subset of the bands and any unit of the pixels. No validation or test image of a recipe
is used.

    python scripts/pretrain_convnext_mini.py ../shared/data          # 1 to 2 hours on one core
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rasterio.enums import Resampling
from safetensors.torch import save_file
from torch import Tensor, nn

import geotune
from geotune.backbones.embedded.convnext_mini import BANDS, WEIGHTS, build_network

SIDE = 64
RGB = ("B04", "B03", "B02")
SENTINEL2 = ("ships", "clouds", "scene", "eurosat")
MOBILENET_STRIDES = (8, 16, 32)
"""MobileNetV2 sees the crops at twice their size, so these are 4, 8 and 16 pixels of the crop."""


@dataclass
class Crops:
    """Crops of one kind of imagery: `(N, C, SIDE, SIDE)`, normalised by the mean and standard
    deviation of each band over all of them."""

    name: str
    bands: tuple[str, ...]
    images: Tensor


def read(path: Path, scale: float = 1.0) -> NDArray[np.float32]:
    """All bands of a file as `(C, H, W)`, at `scale` of its resolution."""
    with rasterio.open(path) as file:
        shape = (file.count, round(file.height * scale), round(file.width * scale))
        return np.asarray(file.read(out_shape=shape, resampling=Resampling.average), np.float32)


def tiles(image: NDArray[np.float32], step: int) -> Iterator[NDArray[np.float32]]:
    """Crops on a grid, without those that are partly empty."""
    _, height, width = image.shape
    for top in range(0, height - SIDE + 1, step):
        for left in range(0, width - SIDE + 1, step):
            crop = image[:, top : top + SIDE, left : left + SIDE]
            if (crop == 0).all(axis=0).mean() < 0.02:
                yield crop


def normalised(name: str, bands: Sequence[str], crops: Sequence[NDArray[np.float32]]) -> Crops:
    """Normalise each band by its mean and standard deviation over all crops."""
    images = torch.from_numpy(np.stack(crops))
    std, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True)
    return Crops(name, tuple(bands), ((images - mean) / std.clamp(min=1e-6)).clamp(-4, 4))


def read_crops(data: Path, rng: np.random.Generator) -> list[Crops]:
    """Crops of the training images of each data set."""
    held_out = {"busan", "durban"}
    ships = [
        tile
        for path in sorted((data / "ships").glob("*.tif"))
        if path.stem not in held_out
        for tile in tiles(read(path), 44)
    ]
    clouds = list(tiles(read(data / "clouds/sentinel2.tif"), 32))
    scene = np.concatenate([read(data / f"scene/B0{band}.tif") for band in range(2, 9)])
    listed = (data / "eurosat/eurosat-train.txt").read_text().split()
    eurosat = [
        read(data / "eurosat/EuroSAT_RGB" / name.partition("_")[0] / name) for name in listed
    ]
    with (data / "aerial/scenes_index.csv").open() as table:
        names = [row["image"] for row in csv.DictReader(table) if row["split"] == "train"]
    aerial = [
        tile
        for name in names
        for scale in (0.25, 0.6)
        for tile in _shuffled(read(data / "aerial" / name, scale), rng, 16)
    ]
    trees = [
        tile
        for name in (data / "trees/train.txt").read_text().split()
        for tile in _shuffled(read(data / "trees/images" / f"{name}.tif"), rng, 8)
    ]
    thermal = [
        tile[:1]
        for name in (data / "thermal/train.txt").read_text().split()
        for tile in _shuffled(read(data / "thermal/images" / f"{name}.jpg", 0.5), rng, 3)
    ]
    return [
        normalised("ships", ("B02", "B03", "B04", "B08", "B11"), ships),
        normalised("clouds", ("B02", "B03", "B04", "B08", "B11", "B12"), clouds),
        normalised("scene", [f"B0{band}" for band in range(2, 9)], list(tiles(scene, 56))),
        normalised("eurosat", RGB, eurosat),
        normalised("aerial", RGB, [tile[:3] for tile in aerial]),
        normalised("trees", (*RGB, "B08"), trees),
        normalised("thermal", ("grey",), thermal),
    ]


def _shuffled(
    image: NDArray[np.float32], rng: np.random.Generator, count: int | None = None
) -> list[NDArray[np.float32]]:
    found = list(tiles(image, 48))
    return [found[i] for i in rng.permutation(len(found))[:count]]


@torch.no_grad()
def teacher_maps(teacher: nn.Module, inputs: Tensor, taps: Sequence[int]) -> list[Tensor]:
    """Feature maps of the taps, over batches, in half precision."""
    maps: list[list[Tensor]] = [[] for _ in taps]
    for batch in inputs.split(32):
        for kept, feature in zip(maps, teacher(batch, taps=taps).maps, strict=True):
            kept.append(feature.half())
    return [torch.cat(kept) for kept in maps]


def galileo_targets(crops: Crops, data: Path) -> list[Tensor]:
    """Galileo-nano's last map, of stride 4."""
    teacher = geotune.backbone(
        "rslearn/galileo_nano", bands=crops.bands, weights=data / "galileo", patch_size=4
    ).eval()
    inputs = crops.images / 4 + 0.5  # mean +- 2 standard deviations are [0, 1] in its pretraining
    return teacher_maps(teacher, inputs, [len(teacher.taps) - 1])


def mobilenet_targets(crops: Crops, data: Path) -> list[Tensor]:
    """MobileNetV2's maps of strides 4, 8 and 16, of red, green and blue or of one band."""
    weights = data / "weights/mobilenetv2_100.safetensors"
    teacher = geotune.backbone("timm/mobilenetv2_100", bands=RGB, weights=weights).eval()
    columns = [crops.bands.index(band) for band in RGB] if "B04" in crops.bands else [0, 0, 0]
    inputs = F.interpolate(crops.images[:, columns], scale_factor=2, mode="bilinear")
    strides = {tap.stride: i for i, tap in enumerate(teacher.taps)}  # the last of each stride
    return teacher_maps(teacher, inputs, [strides[stride] for stride in MOBILENET_STRIDES])


class Heads(nn.Module):
    """From the student's maps to those of the teachers."""

    def __init__(self, dims: Sequence[int], galileo: int, mobilenet: Sequence[int]) -> None:
        super().__init__()
        self.galileo = nn.Conv2d(sum(dims), galileo, 1)
        self.galileo_mean = nn.Linear(dims[-1], galileo)
        self.mobilenet = nn.ModuleList(
            nn.Conv2d(dim, width, 1) for dim, width in zip(dims[:-1], mobilenet, strict=True)
        )
        self.mobilenet_mean = nn.Linear(dims[-1], mobilenet[-1])

    def forward(self, maps: Sequence[Tensor], targets: Sequence[Tensor], galileo: bool) -> Tensor:
        """The loss: mean squared differences of the maps and of their means over the crop."""
        coarse = maps[-1].mean(dim=(2, 3))
        losses = []
        if galileo:
            target, targets = targets[0], targets[1:]
            size = target.shape[-2:]
            fine = torch.cat([F.interpolate(m, size, mode="bilinear") for m in maps], dim=1)
            losses += [F.mse_loss(self.galileo(fine), target)]
            losses += [F.mse_loss(self.galileo_mean(coarse), target.mean(dim=(2, 3)))]
        for head, own, target in zip(self.mobilenet, maps[:-1], targets, strict=True):
            losses.append(F.mse_loss(head(own), target))
        losses.append(F.mse_loss(self.mobilenet_mean(coarse), targets[-1].mean(dim=(2, 3))))
        return torch.stack(losses).sum()


def standardised(maps: Tensor) -> Tensor:
    """Each channel with mean 0 and standard deviation 1 over all crops."""
    sample = maps[:: max(1, len(maps) // 500)].float()
    std, mean = torch.std_mean(sample, dim=(0, 2, 3), keepdim=True)
    return ((maps.float() - mean) / std.clamp(min=1e-3)).clamp(-5, 5).half()


def student_input(images: Tensor, bands: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Images `(B, C, H, W)` on the student's bands, some left out, brightness and contrast varied.

    Bands that are left out are 0, their mean.
    """
    kept = list(range(len(bands)))
    inputs = images.new_zeros(len(images), len(BANDS), *images.shape[2:])
    choice = rng.random()
    if choice < 0.1:
        columns, names = [int(rng.choice(kept))], ["grey"]
    else:
        if choice < 0.4:  # red, green and blue
            kept = [i for i, band in enumerate(bands) if band in RGB] or kept
        elif choice < 0.55:
            kept = sorted(rng.permutation(kept)[: rng.integers(1, len(kept) + 1)])
        columns, names = kept, [bands[i] for i in kept]
    shape = (len(images), len(columns), 1, 1)
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.2, shape))).float()
    shift = torch.from_numpy(rng.normal(0, 0.25, shape)).float()
    inputs[:, [BANDS.index(name) for name in names]] = images[:, columns] * gain + shift
    return inputs


def orient(maps: Tensor, flip: bool, turns: int) -> Tensor:
    """Flip and rotate maps by quarter turns."""
    return torch.rot90(maps.flip(-1) if flip else maps, turns, (-2, -1))


def stage_maps(student: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The maps of the student's stages, strides 4 to 32."""
    x, maps = student.stem(inputs), []  # type: ignore[operator]
    for stage in student.stages:  # type: ignore[union-attr]
        x = stage(x)
        maps.append(x)
    return maps


def batches(
    sizes: Sequence[int], size: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Shuffled batches of one kind of imagery each, over all crops once."""
    found = [
        (kind, indices)
        for kind, count in enumerate(sizes)
        for indices in np.array_split(rng.permutation(count), max(1, count // size))
    ]
    for i in rng.permutation(len(found)):
        yield found[i]


def pretrain(data: Path, out: Path, epochs: int, batch_size: int, lr: float, seed: int) -> None:
    """Train the student and write its weights in half precision."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kinds = read_crops(data, rng)
    targets = []
    for crops in kinds:
        start = time.monotonic()
        # Galileo was trained on Sentinel-2 at 10 m
        galileo = galileo_targets(crops, data) if crops.name in SENTINEL2 else []
        targets.append([standardised(m) for m in (*galileo, *mobilenet_targets(crops, data))])
        seconds = time.monotonic() - start
        print(f"{crops.name}: {len(crops.images)} crops, teachers {seconds:.0f} s", flush=True)
    student = build_network().to(memory_format=torch.channels_last)
    widths = [m.shape[1] for m in targets[-1]]
    heads = Heads([stage.blocks[-1].mlp.fc2.out_channels for stage in student.stages], 128, widths)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    trained = [*student.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, lr, weight_decay=0.05)
    sizes = [len(crops.images) for crops in kinds]
    steps = epochs * len(list(batches(sizes, batch_size, rng)))
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    start = time.monotonic()
    for epoch in range(epochs):
        losses = []
        for kind, indices in batches(sizes, batch_size, rng):
            flip, turns = bool(rng.random() < 0.5), int(rng.integers(4))
            crops = kinds[kind]
            inputs = student_input(orient(crops.images[indices], flip, turns), crops.bands, rng)
            aims = [orient(m[indices], flip, turns).float() for m in targets[kind]]
            loss = heads(stage_maps(student, inputs), aims, galileo=crops.name in SENTINEL2)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(student)
            losses.append(float(loss) / (2 * (crops.name in SENTINEL2) + 4))
        print(
            f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.4f}, "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )
        save(average.module, out)


def save(student: nn.Module, out: Path) -> None:
    """Write the weights in half precision, which halves the file and changes no result visibly."""
    state = {key: tensor.half().contiguous() for key, tensor in student.state_dict().items()}
    save_file(state, out, metadata={"licence": "Apache-2.0", "bands": ",".join(BANDS)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder with ships, clouds, eurosat, ...")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pretrain(given.data, given.out, given.epochs, given.batch_size, given.lr, given.seed)
