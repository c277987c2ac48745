"""The contract that every tuning method keeps: a backbone in, an encoder out.

A method decides two things: what of the backbone changes (or what is put into it), and what is
made of its taps. The second is a `Reader`: it is handed each tap as soon as the backbone has
produced it, so that a feature map need not outlive its use. `full`, `frozen` and `lora` read
the taps as they are (`Levels`); side networks make their own stream of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, pad_to_multiple
from geotune.methods.stem import Stem
from geotune.types import FeatureMaps, GeotuneError, Tap


class Method(Protocol):
    """How a backbone is adapted."""

    def attach(self, backbone: Backbone) -> Encoder:
        """Build the encoder. Raises `GeotuneError` where the method does not fit the backbone."""


def attach(backbone: Backbone, method: Method) -> Encoder:
    """Adapt a backbone by a method: `attach(backbone("timm/resnet18", bands=6), Est())`."""
    return method.attach(backbone)


class Reader(Protocol):
    """What is made of a backbone's taps. An `nn.Module` with these members.

    Attributes:
        wanted: indices of the taps it reads, ascending.
        taps: what it hands on, fine to coarse (or, from a plain ViT, all of one stride).
    """

    wanted: tuple[int, ...]
    taps: tuple[Tap, ...]

    def step(self, state: Any, index: int, feature: Tensor) -> Any:
        """Take tap `index`, `(B, C, h, w)`; `state` is None at first. Returns the new state."""

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """The maps to hand on, one for each of `taps`."""


class Encoder(nn.Module):
    """A backbone with a method: images in, a feature pyramid out.

    Attributes:
        taps: what `forward` returns, for decoders to be built from.
        constant_backbone: true where nothing in or before the backbone trains, so that its
            features can be computed once and kept.
    """

    def __init__(
        self,
        backbone: Backbone,
        reader: nn.Module,
        *,
        stem: int = 0,
        constant_backbone: bool,
        backbone_trains: bool = False,
        merge: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reader = reader
        self.stem = Stem(len(backbone.bands) * backbone.timesteps, stem) if stem else None
        self.constant_backbone = constant_backbone
        self.backbone_trains = backbone_trains
        self._merge = merge
        read: Any = reader
        self.taps: tuple[Tap, ...] = (self.stem.taps if self.stem else ()) + read.taps
        self.train(self.training)  # a frozen backbone's statistics stand still from the start

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
    ) -> FeatureMaps:
        """Feature maps of normalised images `(B, C, H, W)`; inputs as in `Backbone.forward`."""
        images = self.backbone.join(images)
        reader: Any = self.reader
        tracking = torch.is_grad_enabled()
        state: Any = None

        def on_tap(index: int, feature: Tensor) -> Tensor:
            nonlocal state
            with torch.set_grad_enabled(tracking):
                state = reader.step(state, index, feature)
            return feature.new_empty(0)  # the reader keeps what it needs

        with torch.set_grad_enabled(tracking and not self.constant_backbone):
            features = self.backbone(
                images, time=time, location=location, taps=reader.wanted, on_tap=on_tap
            )
        maps = reader.finish(state)
        if self.stem is not None:
            padded = pad_to_multiple(images, self.backbone.pad_to)
            maps = (*self.stem(padded.flatten(1, -3)), *maps)
        return FeatureMaps(maps, features.image_size, features.tokens)

    def train(self, mode: bool = True) -> Encoder:
        """Training mode; a frozen backbone stays in evaluation mode, its statistics still."""
        super().train(mode)
        if not self.backbone_trains:
            for module in self.backbone.modules():
                if not _belongs_to_adapter(module):
                    module.training = False
        return self

    def trainable_names(self) -> list[str]:
        """Names of the parameters that train, as in `named_parameters()`."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def merge(self) -> None:
        """Once, fold what was trained into the backbone's own weights, in place.

        Raises `GeotuneError` for a method that has nothing to merge.
        """
        if self._merge is None:
            raise GeotuneError(
                "nothing to merge: what this method trains stands beside the backbone, or was "
                "merged before; only lora can be merged, once"
            )
        self._merge(self.backbone.model)
        self._merge = None


def _belongs_to_adapter(module: nn.Module) -> bool:
    """Whether a module was put into the backbone by a method, and so follows its mode."""
    return bool(getattr(module, "geotune_inserted", False))


class Levels(nn.Module):
    """Reads chosen taps as they are."""

    def __init__(self, backbone: Backbone, wanted: Sequence[int]) -> None:
        super().__init__()
        self.wanted = tuple(wanted)
        self.taps = tuple(backbone.taps[i] for i in wanted)

    def step(self, state: Any, index: int, feature: Tensor) -> Any:
        """See `Reader.step`."""
        return [*(state or []), feature]

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        return tuple(state)


def level_indices(backbone: Backbone, count: int = 4) -> list[int]:
    """The taps that stand for a backbone in a pyramid.

    Hierarchical: the last block of each stage. Plain ViT: `count` blocks at even distances, the
    last one among them.
    """
    if not backbone.plain:
        return [stage[-1] for stage in backbone.stages]
    depth = len(backbone.taps)
    count = min(count, depth)
    return [round((i + 1) * depth / count) - 1 for i in range(count)]


def freeze(module: nn.Module) -> None:
    """No parameter of the module trains."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def dead_parameters(encoder: Encoder) -> list[str]:
    """Names of trainable parameters that no gradient reaches.

    One pass forward and back on a small random image. A layer whose weights its owner reads
    without calling it (as some attention blocks do) leaves an adapter around it dead; this finds
    out before anyone waits for a training that changes nothing.
    """
    names = encoder.trainable_names()
    parameters = dict(encoder.named_parameters())
    if not names:
        return []
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = 2 * encoder.backbone.pad_to
        inputs = {k: v.to(device) for k, v in encoder.backbone.example(size, size).items()}
        total = sum((m * torch.randn(m.shape).to(m)).sum() for m in encoder(**inputs).maps)
    assert isinstance(total, Tensor)
    gradients = torch.autograd.grad(total, [parameters[n] for n in names], allow_unused=True)
    encoder.train(training)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def require_alive(encoder: Encoder, method: str) -> Encoder:
    """The encoder, if a gradient reaches everything that should train.

    Raises `GeotuneError` with the list of dead layers.
    """
    dead = dead_parameters(encoder)
    if dead:
        layers = sorted({name.rsplit(".", 1)[0] for name in dead})
        raise GeotuneError(
            f"{method} on {encoder.backbone.name}: {len(layers)} attached layers cannot change the "
            f"output, because the model reads their weights without calling them: "
            f"{', '.join(layers[:8])}{' ...' if len(layers) > 8 else ''}; choose other layers or "
            "another method"
        )
    return encoder
