"""The contract that every backbone keeps: images in, the feature map of any block out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.types import BandStatistics, FeatureMaps, GeotuneError, Normalization, Tap

OnTap = Callable[[int, Tensor], Tensor]
"""Called as `on_tap(i, map)` when tap `i` is produced; what it returns is kept in its place."""


class Backbone(nn.Module):
    """A pretrained image encoder whose blocks can be tapped.

    Subclasses set `blocks` and give `run`. `taps` are found by running the model once on a
    small image.

    Attributes:
        name: the name by which geotune knows it, such as `timm/resnet18`.
        bands: names of the input channels, in order.
        taps: one for each block, first to last.
        blocks: the modules whose outputs are the taps, for methods that insert something; empty
            where the model shows no blocks.
        pad_to: images are padded to a multiple of this many pixels.
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

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        bands: Sequence[str],
        pad_to: int,
        licence: str,
        source: str,
        random_weights: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.bands = tuple(bands)
        self.pad_to = pad_to
        self.licence = licence
        self.source = source
        self.random_weights = random_weights

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The modules whose outputs are the taps."""

    @abstractmethod
    def run(
        self, images: Tensor, emit: Callable[[int, Tensor], None], wanted: set[int]
    ) -> Tensor | None:
        """Run the model on padded images `(B, C, H, W)`.

        Calls `emit(i, map)` with `(B, C_i, H_i, W_i)` for each wanted tap, in order. Returns the
        class and register tokens `(B, N, C)`, where there are any.
        """

    def forward(
        self,
        images: Tensor,
        *,
        taps: Sequence[int] | None = None,
        on_tap: OnTap | None = None,
    ) -> FeatureMaps:
        """Feature maps of images `(B, C, H, W)`, any H and W.

        Args:
            images: normalised, finite, float32.
            taps: which blocks are wanted, by index; all by default.
            on_tap: called with each map as soon as it is produced, so that a map need not be
                held; what it returns stands in the result.

        Images are padded at the right and below to a multiple of `pad_to` by repeating the edge;
        the maps cover the padded image, whose size is in the result.
        """
        if images.ndim != 4 or images.shape[1] != len(self.bands):
            raise GeotuneError(
                f"{self.name}: found images of shape {tuple(images.shape)}, expected "
                f"(B, {len(self.bands)}, H, W) with bands {', '.join(self.bands)}"
            )
        indices = list(range(len(self.taps))) if taps is None else list(taps)
        padded = pad_to_multiple(images, self.pad_to)
        found: dict[int, Tensor] = {}

        def emit(index: int, feature: Tensor) -> None:
            found[index] = feature if on_tap is None else on_tap(index, feature)

        tokens = self.run(padded, emit, set(indices))
        size = (padded.shape[-2], padded.shape[-1])
        return FeatureMaps(tuple(found[i] for i in indices), size, tokens)

    def find_taps(self, names: Sequence[str]) -> tuple[Tap, ...]:
        """Channels and stride of each block, from one run on a small image of zeros."""
        size = 2 * self.pad_to
        shapes: dict[int, tuple[int, ...]] = {}

        def emit(index: int, feature: Tensor) -> None:
            shapes[index] = tuple(feature.shape)

        training = self.training
        self.eval()
        with torch.no_grad():
            image = torch.zeros(1, len(self.bands), size, size)
            self.run(image, emit, set(range(len(names))))
        self.train(training)
        return tuple(Tap(name, shapes[i][1], size / shapes[i][2]) for i, name in enumerate(names))

    @property
    def usual_moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
    def plain(self) -> bool:
        """Whether all taps have one stride, as in a plain ViT."""
        return len({tap.stride for tap in self.taps}) == 1

    @property
    def stages(self) -> list[list[int]]:
        """Tap indices by stride, fine to coarse: one list for a plain ViT."""
        strides = sorted({tap.stride for tap in self.taps})
        return [[i for i, tap in enumerate(self.taps) if tap.stride == s] for s in strides]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad images `(B, C, H, W)` at the right and below by repeating the edge."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return images
    return F.pad(images, (0, right, 0, below), mode="replicate")


def fingerprint(module: nn.Module) -> str:
    """A hash of every weight and stored buffer: names, shapes, types and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
