"""The interface of all backbones: images in, the feature map of any block out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from geotune.backbones.blocks import (
    BlockParts,
    TokenLayout,
    TokensToMaps,
    combine_dates,
    find_block_parts,
    from_tiles,
    no_spatial_tokens_error,
    pad_to_multiple,
    to_tiles,
    tokens_to_maps,
)
from geotune.backbones.meta_init import init_is_skipped
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, FeatureMaps, Normalization, Tap

Emit = Callable[[int, Tensor], None]
"""Called by `Backbone.run` as `emit(i, map)` for each tap."""

OnTap = Callable[[int, Tensor], Tensor]
"""Called as `on_tap(i, map)` for each tap; its return value replaces the map in the result."""


class Backbone(nn.Module):
    """A pretrained image encoder with access to the output of every block.

    Subclasses implement `run`, and `blocks` if the model has no attribute `blocks`. Their
    constructor sets `fingerprint` and `taps` (see `find_taps`).

    Args:
        model: the provider's network.
        spec: name, bands, dates and other options.
        size_divisor: images are padded to a multiple of this many pixels.
        licence: licence of the weights.
        source: path or URL of the weights; None for random weights.
        tiled: the model accepts only images of `size_divisor` pixels; larger ones are cut into
            tiles of that size, which are processed independently.

    Attributes:
        spec: the options it was built with.
        name: provider and model, such as `timm/resnet18`.
        bands: names of the input channels, in order.
        modalities: bands of each modality, in order; empty for models of one modality.
        timesteps: number of dates of an image.
        combine: how the maps of the dates are combined.
        metadata: which of `time` and `location` the model receives.
        taps: one per block, first to last: channels, stride and name, as in timm's
            `feature_info`, but for every block.
        blocks: the modules whose outputs are the taps, for methods that insert modules; empty if
            the blocks are not accessible.
        token_layout: order of the tokens in a plain ViT's blocks; None if they have no spatial
            location.
        channels_last: the blocks of a hierarchical model process `(B, h, w, C)`.
        size_divisor: images are padded to a multiple of this many pixels.
        normalization: of raw pixel values as in pretraining, if known.
        pretraining: band statistics of the pretraining data, if published.
        licence, source: of the weights; the licence of a local file is unknown.
        random_weights: no pretrained weights were loaded.
        notes: messages for the user on how the weights were adapted to the bands.
    """

    name: str
    bands: tuple[str, ...]
    taps: tuple[Tap, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    pretraining: BandStatistics | None = None
    token_layout: TokenLayout | None = TokenLayout()
    channels_last: bool = False

    def __init__(
        self,
        model: nn.Module,
        spec: BackboneSpec,
        *,
        size_divisor: int,
        licence: str,
        source: str | None,
        tiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tiled = tiled
        self.spec = spec
        self.name = spec.name
        self.bands = spec.bands
        self.modalities = spec.modalities
        self.timesteps = spec.timesteps
        self.combine = spec.combine
        self.metadata = spec.metadata
        self.size_divisor = size_divisor
        self.random_weights = source is None
        self.licence = "none" if source is None else licence
        if spec.weights is not None:
            self.licence = "unknown: given as a file"
        self.source = source if source is not None else "random weights"

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules whose outputs are the taps; by default `model.blocks`."""
        return list(self.model.blocks)  # type: ignore[arg-type]

    def block_parts(self, index: int) -> BlockParts:
        """Names of attention and MLP in block `index`."""
        return find_block_parts(self.blocks[index])

    def downsample_before(self, index: int) -> nn.Module | None:
        """The downsampling layer between block `index` and the stage before it, if there is one.

        Its input and output have the layout of the blocks.
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

        Calls `emit(i, map)` with `(B, C_i, H_i, W_i)` for each tap in `out_indices`, in order, or
        with `(B, C_i, T, H_i, W_i)` if the model keeps dates separate. `time` and `location` are
        as in `forward`, and given if `metadata` lists them. Returns class and register tokens
        `(B, N, C)`, if any.
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
        """Feature maps of images `(B, C, H, W)` of any height and width.

        Images are padded at the right and bottom to a multiple of `size_divisor` by repeating the
        edge; the maps cover the padded image, whose size is part of the result.

        Args:
            images: normalised, finite, float32; `(B, C, T, H, W)` of several dates; or a dict of
                such images by modality.
            time: `(B, T, 2)`, year and day of year (1 to 366) of each date.
            location: `(B, 2)`, longitude and latitude in degrees.
            taps: indices of the blocks to return; all by default.
            on_tap: called with each map as soon as it is computed; its return value replaces the
                map, so that maps need not be kept in memory.
            padded: `images` are the output of `prepare`.

        Raises `GeotuneError` if the images have another shape or are smaller than a patch, or if
        `metadata` lists an input that is missing.
        """
        x = images if padded and isinstance(images, Tensor) else self.prepare(images)
        given = {"time": time, "location": location}
        for name in self.metadata:
            self._check_metadata(name, given[name], x.shape[0])
        indices = list(range(len(self.taps))) if taps is None else list(taps)
        maps: dict[int, Tensor] = {}

        size = (x.shape[-2], x.shape[-1])
        grid = (
            (size[0] // self.size_divisor, size[1] // self.size_divisor) if self.tiled else (1, 1)
        )

        def emit(index: int, feature: Tensor) -> None:
            whole = from_tiles(combine_dates(feature, self.combine), grid)
            maps[index] = whole if on_tap is None else on_tap(index, whole)

        used = {
            name: value.repeat_interleave(grid[0] * grid[1], 0)
            for name, value in given.items()
            if name in self.metadata and value is not None
        }
        with _padded_to(size[0] // grid[0], size[1] // grid[1]):
            tokens = self.run(to_tiles(x, grid), emit, set(indices), **used)
        if tokens is not None:
            tokens = tokens.reshape(x.shape[0], -1, tokens.shape[-1])
        return FeatureMaps(tuple(maps[i] for i in indices), size, tokens)

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the padded images, or tiles, during a forward pass."""
        return _padded_size.get()

    def tokens_to_maps(
        self, index: int, x: Tensor, channels_last: bool | None = None
    ) -> TokensToMaps:
        """Activations of block `index` as maps, during a forward pass.

        `channels_last` overrides the attribute of that name for 4-D activations. Raises
        `GeotuneError` if the tokens have no spatial location.
        """
        stride = self.taps[index].stride
        grid = (round(self.padded_size[0] / stride), round(self.padded_size[1] / stride))
        last = self.channels_last if channels_last is None else channels_last
        maps = tokens_to_maps(x, self.token_layout, grid, channels_last=last)
        if maps is None:
            raise no_spatial_tokens_error(self.name, "this method")
        return maps

    def prepare(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Join the images' modalities, check their shape and pad them; see `forward`."""
        joined = self.join(images)
        patch = min(tap.stride for tap in self.taps)
        if min(joined.shape[-2:]) < patch:
            raise GeotuneError(
                f"{self.name}: images of {joined.shape[-2]} x {joined.shape[-1]} pixels are "
                f"smaller than a patch ({patch:g} pixels); use larger images",
                code="input-shape",
            )
        return pad_to_multiple(joined, self.size_divisor)

    def join(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Concatenate images by modality to one tensor with channels in the order of `bands`.

        Raises `GeotuneError` if the modalities or the shape are not those of the backbone.
        """
        if not isinstance(images, Tensor):
            if set(images) != set(self.modalities):
                raise GeotuneError(
                    f"{self.name}: got images of the modalities {', '.join(images)}, expected "
                    f"{', '.join(self.modalities) or 'one tensor, as it has a single modality'}",
                    code="input-shape",
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
                f"{self.name}: got images of shape {tuple(images.shape)}, expected ({expected}) "
                f"with bands {', '.join(self.bands)}"
                + (
                    ""
                    if dates or images.ndim != 5
                    else "; set backbone.timesteps for several dates"
                ),
                code="input-shape",
            )
        return images

    def _check_metadata(self, name: str, given: Tensor | None, batch: int) -> None:
        shape = (batch, self.timesteps, 2) if name == "time" else (batch, 2)
        if given is None:
            raise GeotuneError(
                f"{self.name}: the input {name} is missing; pass it with shape {shape}, or build "
                f"the backbone without {name} in its metadata",
                code="input-shape",
            )
        if tuple(given.shape) != shape:
            raise GeotuneError(
                f"{self.name}: got {name} of shape {tuple(given.shape)}, expected {shape}",
                code="input-shape",
            )

    def example(self, height: int, width: int) -> dict[str, Tensor]:
        """Random inputs of `forward` for one image, on the CPU."""
        dates = () if self.timesteps == 1 else (self.timesteps,)
        inputs = {"images": torch.randn(1, len(self.bands), *dates, height, width)}
        if "time" in self.metadata:
            inputs["time"] = torch.tensor([[[2020.0, 180.0]] * self.timesteps])
        if "location" in self.metadata:
            inputs["location"] = torch.tensor([[10.0, 50.0]])
        return inputs

    def find_taps(self, names: Sequence[str] | None = None) -> tuple[Tap, ...]:
        """Measure channels and stride of each tap by running the model on a small image.

        `names` are the taps' names; by default the blocks' names in the model.
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

    def set_statistics(
        self, means: tuple[float, ...], stds: tuple[float, ...], *, two_stds: bool = False
    ) -> None:
        """Set the pretraining statistics of the bands, and the normalisation by them.

        With `two_stds`, mean +- 2 standard deviations are scaled to [0, 1].
        """
        offset, scale = means, stds
        if two_stds:
            offset = tuple(m - 2 * s for m, s in zip(means, stds, strict=True))
            scale = tuple(4 * s for s in stds)
        self.normalization = Normalization(self.bands, offset, scale)
        self.pretraining = BandStatistics(self.bands, means, stds, pixels=0)

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each normalised band in the pretraining data.

        0 and 1 if the normalisation or the statistics are unknown.
        """
        scaling, raw = self.normalization, self.pretraining
        if scaling is None or raw is None:
            return (0.0,) * len(self.bands), (1.0,) * len(self.bands)
        means = zip(raw.mean, scaling.offset, scaling.scale, strict=True)
        stds = zip(raw.std, scaling.scale, strict=True)
        return tuple((m - o) / s for m, o, s in means), tuple(d / s for d, s in stds)

    @property
    def is_plain_vit(self) -> bool:
        """Whether all taps have the same stride."""
        return len({tap.stride for tap in self.taps}) == 1

    @property
    def has_spatial_tokens(self) -> bool:
        """Whether activations inside the blocks have a location in the image."""
        return not self.is_plain_vit or self.token_layout is not None

    @property
    def stages(self) -> list[list[int]]:
        """Tap indices grouped by stride, fine to coarse; one group for a plain ViT."""
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


def run_blocks(
    x: Tensor,
    blocks: Sequence[nn.Module],
    norm: nn.Module | None,
    to_map: Callable[[Tensor], Tensor],
    emit: Emit,
    out_indices: set[int],
) -> Tensor:
    """Run tokens `(B, N, D)` through blocks, then `norm`; emits `to_map(tokens)` of each block."""
    for index, block in enumerate(blocks):
        x = block(x)
        if index == len(blocks) - 1 and norm is not None:
            x = norm(x)
        if index in out_indices:
            emit(index, to_map(x))
    return x


def fingerprint(module: nn.Module) -> str:
    """Hash of the state dict: names, shapes, types and bytes; empty within `skip_init`."""
    if init_is_skipped():
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
