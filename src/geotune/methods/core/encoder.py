r"""A backbone adapted by a method: images in, feature maps out.

images --> backbone --> taps --> reader --> maps
     \-------------> stem ----------------> maps of strides 1, 2 and 4
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, fingerprint
from geotune.config.method_options import MethodOptions
from geotune.errors import GeotuneError
from geotune.methods.core.block_hooks import capture_block_activations
from geotune.methods.core.injection import ModuleWrapper, is_inserted, remove_shared_part
from geotune.methods.core.quantization import quantize_frozen
from geotune.methods.core.reader import BlockActivations, Reader
from geotune.methods.core.stem import Stem
from geotune.types import FeatureMaps, Tap
from geotune.utils.activation_checkpointing import recompute

ConsumeTap = Callable[[int, Tensor, BlockActivations | None], None]
"""Called as `consume(index, tap, activations)` as soon as a tap is computed."""


class Encoder(nn.Module):
    """A backbone with a method attached.

    Attributes:
        taps: channels and strides of the maps that `forward` returns; decoders are built from it.
        backbone_frozen: no parameter in or before the backbone trains, so its features can be
            computed once and cached.
        merged: whether `merge` was called.

    Args:
        backbone: with the method's modules inserted and `requires_grad` set.
        reader: computes the maps from the backbone's taps.
        method: gives `stem_width` and `frozen_precision`.
        backbone_frozen: see above.
        backbone_trains: the backbone follows the training mode (batch-norm statistics change).
        merge: folds the trained update into `backbone.model`.
    """

    def __init__(
        self,
        backbone: Backbone,
        reader: Reader,
        method: MethodOptions | None = None,
        *,
        backbone_frozen: bool,
        backbone_trains: bool = False,
        merge: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reader = reader
        self.method = method
        width = method.stem_width if method else 0
        self.stem = Stem(len(backbone.bands) * backbone.timesteps, width) if width else None
        if method and method.frozen_precision != "fp32":
            quantize_frozen(backbone, method.frozen_precision)
        self.backbone_frozen = backbone_frozen
        self.backbone_trains = backbone_trains
        self._merge = merge
        self.merged = False
        self.taps: tuple[Tap, ...] = (self.stem.taps if self.stem else ()) + reader.taps
        self.train(self.training)  # puts a frozen backbone into evaluation mode

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> FeatureMaps:
        """Compute feature maps of normalised images `(B, C, H, W)`; see `Backbone.forward`.

        With `features`, the result of `features()` for these images, the backbone does not run.
        """
        padded = self.backbone.prepare(images)
        try:
            state = self.reader.start(padded)

            def consume(index: int, feature: Tensor, activations: BlockActivations | None) -> None:
                nonlocal state
                state = self.reader(state, index, feature, activations)

            tokens = None
            if features is None:
                tokens = self._run(padded, time, location, consume)
            else:
                for index in self.reader.out_indices:
                    consume(index, *self._cached_inputs(features, index, padded.new_empty(0)))
            return self._finish(state, padded, tokens)
        except BaseException:  # such as memory that ran out: a retry needs what this pass kept
            self.reader.reset()
            raise

    def _finish(self, state: Any, padded: Tensor, tokens: Tensor | None) -> FeatureMaps:
        """The maps of the reader and the stem."""
        maps = self.reader.finish(state)
        if self.stem is not None:
            maps = (*self.stem(padded.flatten(1, -3)), *maps)
        return FeatureMaps(maps, (padded.shape[-2], padded.shape[-1]), tokens)

    @torch.no_grad()
    def features(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute what `forward` reads from the backbone, `(B, C, h, w)` by name.

        Names are `<tap index>.<input>`, such as `11.feature`, see `ReaderInput`. Valid while
        `backbone_frozen` is true and until the next calibration.
        """
        cached: dict[str, Tensor] = {}

        def consume(index: int, feature: Tensor, activations: BlockActivations | None) -> None:
            for name in self.reader.required_inputs(index):
                tensor = feature if name == "feature" else getattr(activations, name)
                if tensor is not None:  # a block may have no attention
                    cached[f"{index}.{name}"] = tensor

        self._run(self.backbone.prepare(images), time, location, consume)
        return cached

    def _run(
        self, padded: Tensor, time: Tensor | None, location: Tensor | None, consume: ConsumeTap
    ) -> Tensor | None:
        """Run the backbone, pass each tap to `consume`, and return class and register tokens."""
        reader = self.reader
        grad_enabled = torch.is_grad_enabled()

        def on_tap(index: int, feature: Tensor) -> Tensor:
            activations = captured.pop(index)(feature) if index in captured else None
            with torch.set_grad_enabled(grad_enabled):
                consume(index, reader.compress(index, feature), activations)
            return feature.new_empty(0)  # frees the map, unless the reader stores it

        with (
            torch.set_grad_enabled(grad_enabled and not self.backbone_frozen),
            capture_block_activations(self.backbone, reader.internals_at) as captured,
        ):
            maps: FeatureMaps = self.backbone(
                padded,
                time=time,
                location=location,
                taps=reader.out_indices,
                on_tap=on_tap,
                padded=True,
            )
        return maps.tokens

    def _cached_inputs(
        self, features: Mapping[str, Tensor], index: int, empty: Tensor
    ) -> tuple[Tensor, BlockActivations | None]:
        """Return tap and block activations from cached features."""
        inputs = {
            name: features[key]
            for name in self.reader.required_inputs(index)
            if (key := f"{index}.{name}") in features
        }
        feature = inputs.get("feature", empty)
        if index not in self.reader.internals_at:
            return feature, None
        before = inputs.get("before", empty)
        return feature, BlockActivations(before, inputs.get("attention"), inputs.get("mlp"))

    @contextmanager
    def without_backbone(self) -> Iterator[None]:
        """Remove the backbone from the submodules, except for the reader's `shared_layers`.

        Inside the context, moving or storing the encoder does not touch the backbone, as needed
        for training from cached features. `self.backbone` is still a plain attribute.
        """
        modules = dict(self._modules)
        backbone = self._modules.pop("backbone")
        object.__setattr__(self, "backbone", backbone)
        self._modules["borrowed"] = nn.ModuleList(self.reader.shared_layers())
        try:
            yield
        finally:
            object.__delattr__(self, "backbone")
            self._modules.clear()
            self._modules.update(modules)  # restores the order

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Fit the reader's data-dependent parameters to normalised images, before training.

        Batches may be of any size and number: no map is kept.
        """

        def on_tap(index: int, feature: Tensor) -> Tensor:
            self.reader.observe(index, feature)
            return feature.new_empty(0)

        for batch in batches:
            self.backbone(**batch, taps=self.reader.out_indices, on_tap=on_tap)
        self.reader.calibrate()

    def train(self, mode: bool = True) -> Encoder:
        """Set the training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.backbone_trains:
            for module in self.backbone.modules():
                if not is_inserted(module):
                    module.training = False
        return self

    def trainable_names(self) -> list[str]:
        """Return the names of trainable parameters, as in `named_parameters()`."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    @property
    def can_merge(self) -> bool:
        """Whether the method has an update that `merge` folds into the backbone's weights."""
        return self._merge is not None

    def merge(self) -> None:
        """Fold the trained update into the backbone's weights, in place.

        The backbone gets a new fingerprint, and the trained tensors become part of it: save the
        adapter first. Raises `GeotuneError` if the method cannot be merged, or is merged already.
        """
        if self._merge is None:
            raise GeotuneError(
                "nothing to merge: the method does not update the backbone's own weights, or was "
                "merged before; lora, most of peft's tuners, ssl, ssb, slr, aurora and mpo can be "
                "merged, once",
                code="merge-unsupported",
                key="method.kind",
            )
        self._merge(self.backbone.model)
        remove_shared_part(self.backbone)
        self._merge = None
        self.merged = True
        self.backbone.fingerprint = fingerprint(self.backbone.model)


def encode_together(
    encoders: Sequence[Encoder],
    images: Tensor,
    *,
    time: Tensor | None = None,
    location: Tensor | None = None,
) -> list[FeatureMaps]:
    """The maps of encoders with one frozen backbone, which runs once, without gradients.

    Each tap goes to all readers as soon as it is computed, so that none is kept that no reader
    keeps. The maps are those of each encoder's `forward`, whose arguments are the same.
    """
    backbone = encoders[0].backbone
    padded = backbone.prepare(images)
    readers = [each.reader for each in encoders]
    states = [reader.start(padded) for reader in readers]

    def on_tap(index: int, feature: Tensor) -> Tensor:
        activations = captured.pop(index)(feature) if index in captured else None
        for i, reader in enumerate(readers):
            if index in reader.out_indices:
                inside = activations if index in reader.internals_at else None
                states[i] = reader(states[i], index, reader.compress(index, feature), inside)
        return feature.new_empty(0)

    taps = sorted({index for reader in readers for index in reader.out_indices})
    inside = sorted({index for reader in readers for index in reader.internals_at})
    with torch.no_grad(), capture_block_activations(backbone, inside) as captured:
        maps: FeatureMaps = backbone(
            padded, time=time, location=location, taps=taps, on_tap=on_tap, padded=True
        )
        return [
            encoder._finish(state, padded, maps.tokens)
            for encoder, state in zip(encoders, states, strict=True)
        ]


def recompute_blocks(encoder: Encoder) -> bool:
    """Apply activation checkpointing to the backbone's blocks if gradients cross them.

    Returns whether one of them was not checkpointed yet.
    """
    changed = False
    if encoder.backbone_frozen:
        return changed
    for block in encoder.backbone.blocks:
        while isinstance(block, ModuleWrapper) and block.has_side_effects:
            block = block.inner
        changed |= recompute(block)
    return changed
