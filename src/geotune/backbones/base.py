"""The contract that every backbone keeps: images in, the feature map of any block out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.blocks import (
    BlockParts,
    Tokens,
    TokensToMaps,
    find_parts,
    no_spatial_tokens_error,
    tokens_to_maps,
)
from geotune.backbones.meta_init import are_empty
from geotune.backbones.spec import BackboneSpec, Combine
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, FeatureMaps, Normalization, Tap

Emit = Callable[[int, Tensor], None]
"""Called as `emit(i, map)` when tap `i` is produced."""

OnTap = Callable[[int, Tensor], Tensor]
"""Called as `on_tap(i, map)` when tap `i` is produced; what it returns is kept in its place."""


class Backbone(nn.Module):
    """A pretrained image encoder whose blocks can be tapped.

    Subclasses give `run`, and `blocks` where the model does not call them so. `taps` are found by
    running the model once on a small image.

    Args:
        model: the provider's network.
        request: what was asked for: name, bands, time steps, metadata.
        size_divisor: images are padded to a multiple of this many pixels.
        licence: of the weights.
        source: where the weights came from; None where they are random.
        tiled: the model takes images of `size_divisor` pixels only, so larger ones are cut into such
            tiles, which do not see each other.

    Attributes:
        request: what was asked for.
        name: the name by which geotune knows it, such as `timm/resnet18`.
        bands: names of the input channels, in order.
        modalities: which bands make up which modality, in order; empty for models of one.
        timesteps: how many dates an image has.
        combine: how the maps of the dates become one.
        metadata: what of `time` and `location` the model is given.
        taps: one for each block, first to last.
        blocks: the modules whose outputs are the taps, for methods that insert something; empty
            where the model shows no blocks.
        tokens: how the tokens of a plain ViT's blocks lie; None where they have no places.
        channels_last: a hierarchical model's blocks work on `(B, h, w, C)`.
        size_divisor: images are padded to a multiple of this many pixels.
        normalization: from raw pixel values to what the model was trained on, where known.
        pretraining: band statistics of the pretraining data, where published.
        licence, source: of the weights.
        random_weights: true where nothing pretrained was loaded.
        notes: what a user should know about how the weights were fitted to the bands.
    """

    name: str
    bands: tuple[str, ...]
    taps: tuple[Tap, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    pretraining: BandStatistics | None = None
    tokens: Tokens | None = Tokens()
    channels_last: bool = False

    def __init__(
        self,
        model: nn.Module,
        request: BackboneSpec,
        *,
        size_divisor: int,
        licence: str,
        source: str | None,
        tiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tiled = tiled
        self.request = request
        self.name = request.name
        self.bands = request.bands
        self.modalities = request.modalities
        self.timesteps = request.timesteps
        self.combine = request.combine
        self.metadata = request.metadata
        self.size_divisor = size_divisor
        self.random_weights = source is None
        self.licence = licence if source is not None else "none"
        self.source = source if source is not None else "random weights"

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules whose outputs are the taps; by default the model's own `blocks`."""
        return list(self.model.blocks)  # type: ignore[arg-type]

    def parts(self, index: int) -> BlockParts:
        """Where attention and MLP are in block `index`."""
        return find_parts(self.blocks[index])

    def merging(self, index: int) -> nn.Module | None:
        """What stands before block `index` and brings the map to that block's stride.

        None where the block is not the first of its stage or there is no such module. Takes and
        gives the stream as the blocks do.
        """
        return None

    @abstractmethod
    def run(
        self,
        images: Tensor,
        emit: Emit,
        out_indices: set[int],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
    ) -> Tensor | None:
        """Run the model on padded images `(B, C, H, W)`, or `(B, C, T, H, W)` of several dates.

        Calls `emit(i, map)` with `(B, C_i, H_i, W_i)` for each requested tap, in order; with
        `(B, C_i, T, H_i, W_i)` where the model keeps the dates apart. `time` and `location` are
        there where `metadata` names them, as `forward` says. Returns the class and register
        tokens `(B, N, C)`, where there are any.
        """

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        taps: Sequence[int] | None = None,
        on_tap: OnTap | None = None,
        padded: bool = False,
    ) -> FeatureMaps:
        """Feature maps of images `(B, C, H, W)`, any H and W.

        Args:
            images: normalised, finite, float32; `(B, C, T, H, W)` of several dates; or such
                images by modality.
            time: `(B, T, 2)`, year and day of the year (1 to 366) of each date.
            location: `(B, 2)`, longitude and latitude in degrees.
            taps: which blocks are requested, by index; all by default.
            on_tap: called with each map as soon as it is produced, so that a map need not be
                held; what it returns stands in the result.
            padded: `images` come from `prepare`.

        Images are padded at the right and below to a multiple of `size_divisor` by repeating the edge;
        the maps cover the padded image, whose size is in the result. `time` and `location` are
        read only by a model whose `metadata` names them. Raises `GeotuneError` for images of
        another shape or smaller than a patch, and where what `metadata` names is missing.
        """
        x = images if padded and isinstance(images, Tensor) else self.prepare(images)
        given = {"time": time, "location": location}
        for name in self.metadata:
            self._check_metadata(name, given[name], len(x))
        indices = list(range(len(self.taps))) if taps is None else list(taps)
        found: dict[int, Tensor] = {}

        size = (x.shape[-2], x.shape[-1])
        grid = (
            (size[0] // self.size_divisor, size[1] // self.size_divisor) if self.tiled else (1, 1)
        )

        def emit(index: int, feature: Tensor) -> None:
            one = from_tiles(combine_dates(feature, self.combine), grid)
            found[index] = one if on_tap is None else on_tap(index, one)

        used = {
            name: value.repeat_interleave(grid[0] * grid[1], 0)
            for name, value in given.items()
            if name in self.metadata and value is not None
        }
        with _padded_to(size[0] // grid[0], size[1] // grid[1]):
            tokens = self.run(to_tiles(x, grid), emit, set(indices), **used)
        if tokens is not None:
            tokens = tokens.reshape(len(x), -1, tokens.shape[-1])
        return FeatureMaps(tuple(found[i] for i in indices), size, tokens)

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the padded images (or tiles) that the model is running on."""
        return _padded_size.get()

    def tokens_to_maps(
        self, index: int, x: Tensor, channels_last: bool | None = None
    ) -> TokensToMaps:
        """The stream of block `index` as maps, while the model runs.

        `channels_last` overrides that of the backbone for a stream of four dimensions. Raises
        `GeotuneError` where tokens have no place in the image.
        """
        stride = self.taps[index].stride
        grid = (round(self.padded_size[0] / stride), round(self.padded_size[1] / stride))
        last = self.channels_last if channels_last is None else channels_last
        maps = tokens_to_maps(x, self.tokens, grid, channels_last=last)
        if maps is None:
            raise no_spatial_tokens_error(self.name, "this method")
        return maps

    def prepare(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Join images as `forward` takes them and pad them to a multiple of `size_divisor`."""
        joined = self.join(images)
        patch = min(tap.stride for tap in self.taps)
        if min(joined.shape[-2:]) < patch:
            raise GeotuneError(
                f"{self.name}: found images of {joined.shape[-2]} x {joined.shape[-1]} pixels, "
                f"smaller than a patch of {patch:g}; give larger ones"
            )
        return pad_to_multiple(joined, self.size_divisor)

    def join(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Images by modality as one tensor, its channels in the order of `bands`.

        Raises `GeotuneError` for images of another shape than the backbone takes.
        """
        if not isinstance(images, Tensor):
            if set(images) != set(self.modalities):
                raise GeotuneError(
                    f"{self.name}: found images of {', '.join(images)}, expected "
                    f"{', '.join(self.modalities) or 'one tensor: it has a single modality'}"
                )
            images = torch.cat([images[name] for name in self.modalities], dim=1)
        if self.timesteps == 1 and images.ndim == 5 and images.shape[2] == 1:
            images = images.squeeze(2)
        dates = () if self.timesteps == 1 else (self.timesteps,)
        if (
            images.ndim != 4 + len(dates)
            or images.shape[1] != len(self.bands)
            or tuple(images.shape[2:-2]) != dates
        ):
            expected = ", ".join(["B", str(len(self.bands)), *map(str, dates), "H", "W"])
            raise GeotuneError(
                f"{self.name}: found images of shape {tuple(images.shape)}, expected "
                f"({expected}) with bands {', '.join(self.bands)}"
                + ("" if dates or images.ndim != 5 else "; backbone.timesteps says how many dates")
            )
        return images

    def _check_metadata(self, name: str, given: Tensor | None, batch: int) -> None:
        shape = (batch, self.timesteps, 2) if name == "time" else (batch, 2)
        if given is None:
            raise GeotuneError(
                f"{self.name}: was built to be given {name}, and got none; give it as {shape}, or "
                f"build the backbone without {name} in its metadata"
            )
        if tuple(given.shape) != shape:
            raise GeotuneError(
                f"{self.name}: found {name} of shape {tuple(given.shape)}, expected {shape}"
            )

    def example(self, height: int, width: int) -> dict[str, Tensor]:
        """Random images of one place with what else `forward` needs, on the CPU."""
        dates = () if self.timesteps == 1 else (self.timesteps,)
        inputs = {"images": torch.randn(1, len(self.bands), *dates, height, width)}
        if "time" in self.metadata:
            inputs["time"] = torch.tensor([[[2020.0, 180.0]] * self.timesteps])
        if "location" in self.metadata:
            inputs["location"] = torch.tensor([[10.0, 50.0]])
        return inputs

    def find_taps(self, names: Sequence[str] | None = None) -> tuple[Tap, ...]:
        """Channels and stride of each block, from one run on a small image.

        `names` are those of the blocks in the model, unless other things are tapped.
        """
        if names is None:
            name_of = {module: name for name, module in self.model.named_modules()}
            names = [name_of[block] for block in self.blocks]
        size = self.size_divisor if self.tiled else 2 * self.size_divisor
        shapes: dict[int, tuple[int, ...]] = {}

        def emit(index: int, feature: Tensor) -> None:
            shapes[index] = tuple(combine_dates(feature, self.combine).shape)

        training = self.training
        self.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            inputs = self.example(size, size)
            with _padded_to(size, size):
                self.run(inputs.pop("images"), emit, set(range(len(names))), **inputs)
        self.train(training)
        return tuple(Tap(name, shapes[i][1], size / shapes[i][2]) for i, name in enumerate(names))

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band as the model was used to get them.

        Those of the pretraining data after its normalisation, where both are known; else 0 and 1.
        """
        known, seen = self.normalization, self.pretraining
        if known is None or seen is None:
            return (0.0,) * len(self.bands), (1.0,) * len(self.bands)
        means = zip(seen.mean, known.offset, known.scale, strict=True)
        stds = zip(seen.std, known.scale, strict=True)
        return tuple((m - o) / s for m, o, s in means), tuple(d / s for d, s in stds)

    @property
    def is_columnar(self) -> bool:
        """Whether all taps have one stride, as in a plain ViT."""
        return len({tap.stride for tap in self.taps}) == 1

    @property
    def has_spatial_tokens(self) -> bool:
        """Whether what is inside the blocks has places in the image, as maps have."""
        return not self.is_columnar or self.tokens is not None

    @property
    def stages(self) -> list[list[int]]:
        """Tap indices by stride, fine to coarse: one list for a plain ViT."""
        strides = sorted({tap.stride for tap in self.taps})
        return [[i for i, tap in enumerate(self.taps) if tap.stride == s] for s in strides]


_padded_size: ContextVar[tuple[int, int]] = ContextVar("padded_size")


@contextmanager
def _padded_to(height: int, width: int) -> Iterator[None]:
    """Set `Backbone.padded_size` for one pass."""
    before = _padded_size.set((height, width))
    try:
        yield
    finally:
        _padded_size.reset(before)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad images `(B, C, H, W)` or `(B, C, T, H, W)` at the right and below, repeating the edge."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return images
    padding = (0, right, 0, below) + (0, 0) * (images.ndim - 4)
    return F.pad(images, padding, mode="replicate")


def to_tiles(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images `(B, ..., H, W)` as `grid` tiles each, `(B rows columns, ..., h, w)`."""
    if grid == (1, 1):
        return images
    rows = torch.stack(images.chunk(grid[0], -2), 1)
    tiles = torch.stack(rows.chunk(grid[1], -1), 2)
    return tiles.flatten(0, 2)


def from_tiles(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps of tiles `(B rows columns, C, h, w)` side by side again, `(B, C, rows h, columns w)`."""
    if grid == (1, 1):
        return maps
    channels, height, width = maps.shape[1:]
    tiles = maps.reshape(-1, *grid, channels, height, width)
    whole = tiles.permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(-1, channels, grid[0] * height, grid[1] * width)


def combine_dates(feature: Tensor, rule: Combine) -> Tensor:
    """One map `(B, C, h, w)` of the maps of several dates `(B, C, T, h, w)`.

    Their mean, their maximum, the last one, or all of them side by side `(B, C T, h, w)`.
    """
    if feature.ndim == 4:
        return feature
    if rule == "concat":
        return feature.flatten(1, 2)
    if rule == "last":
        return feature[:, :, -1]
    return feature.mean(2) if rule == "mean" else feature.amax(2)


@contextmanager
def tapped(
    modules: Sequence[nn.Module], out_indices: set[int], emit: Callable[[int, Any], None]
) -> Iterator[None]:
    """Calls `emit(i, output)` when module `i`, if requested, has run."""
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, index=index: emit(index, output)
        )
        for index, module in enumerate(modules)
        if index in out_indices
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def fingerprint(module: nn.Module) -> str:
    """A hash of every weight and stored buffer: names, shapes, types and bytes.

    Nothing where the weights are empty (see `empty.py`).
    """
    if are_empty():
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
