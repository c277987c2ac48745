"""A backbone adapted by a method: images in, a feature pyramid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, fingerprint
from geotune.config.method_options import MethodOptions
from geotune.errors import GeotuneError
from geotune.methods.core.block_hooks import capture_block_activations
from geotune.methods.core.injection import Wrapped, is_inserted
from geotune.methods.core.quantization import quantize_frozen
from geotune.methods.core.reader import BlockActivations, Reader
from geotune.methods.core.stem import Stem
from geotune.types import FeatureMaps, Tap
from geotune.utils.activation_checkpointing import recompute


class Encoder(nn.Module):
    """A backbone with a method: images in, a feature pyramid out.

    Attributes:
        taps: what `forward` returns, for decoders to be built from.
        backbone_frozen: true where nothing in or before the backbone trains, so that its
            features can be computed once and kept.
        merged: true from `merge` on.

    Args:
        backbone: whose parameters train or not by now, with what the method put in.
        reader: of its taps.
        method: whose `stem` and `frozen_precision` it gets.
        backbone_frozen: see above.
        backbone_trains: its statistics move, as in training from scratch.
        merge: folds what was trained into `backbone.model`.
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
        stem = method.stem_width if method else 0
        self.stem = Stem(len(backbone.bands) * backbone.timesteps, stem) if stem else None
        if method and method.frozen_precision != "fp32":
            quantize_frozen(backbone, method.frozen_precision)
        self.backbone_frozen = backbone_frozen
        self.backbone_trains = backbone_trains
        self._merge = merge
        self.merged = False
        self.taps: tuple[Tap, ...] = (self.stem.taps if self.stem else ()) + reader.taps
        self.train(self.training)  # a frozen backbone's statistics stand still from the start

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> FeatureMaps:
        """Feature maps of normalised images `(B, C, H, W)`; inputs as in `Backbone.forward`.

        With `features`, which are what `features` gave for these images, the backbone does not
        run.
        """
        padded = self.backbone.prepare(images)
        state = self.reader.start(padded)

        def take(index: int, feature: Tensor, inside: BlockActivations | None) -> None:
            nonlocal state
            state = self.reader(state, index, feature, inside)

        tokens = None
        if features is None:
            tokens = self._run(padded, time, location, take)
        else:
            for index in self.reader.out_indices:
                take(index, *self._kept(features, index, padded.new_empty(0)))
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
        """What `forward` needs of the backbone for these images: `(B, C, h, w)` by name.

        The names are `<tap>.<part>`, such as `11.feature`. Good for as long as `backbone_frozen`
        is true and nothing is calibrated.
        """
        kept: dict[str, Tensor] = {}

        def take(index: int, feature: Tensor, inside: BlockActivations | None) -> None:
            for part in self.reader.required_inputs(index):
                found = feature if part == "feature" else getattr(inside, part)
                if found is not None:  # a block may have no attention
                    kept[f"{index}.{part}"] = found

        self._run(self.backbone.prepare(images), time, location, take)
        return kept

    def _run(
        self,
        padded: Tensor,
        time: Tensor | None,
        location: Tensor | None,
        take: Callable[[int, Tensor, BlockActivations | None], None],
    ) -> Tensor | None:
        """Run the backbone and have each wanted tap taken at once. Returns its tokens."""
        reader = self.reader
        tracking = torch.is_grad_enabled()

        def on_tap(index: int, feature: Tensor) -> Tensor:
            inside = seen.pop(index)(feature) if index in seen else None
            with torch.set_grad_enabled(tracking):
                take(index, reader.compress(index, feature), inside)
            return feature.new_empty(0)  # the reader keeps what it needs

        with (
            torch.set_grad_enabled(tracking and not self.backbone_frozen),
            capture_block_activations(self.backbone, reader.internals_at) as seen,
        ):
            found: FeatureMaps = self.backbone(
                padded,
                time=time,
                location=location,
                taps=reader.out_indices,
                on_tap=on_tap,
                padded=True,
            )
        return found.tokens

    def _kept(
        self, features: Mapping[str, Tensor], index: int, nothing: Tensor
    ) -> tuple[Tensor, BlockActivations | None]:
        """A tap and the block's inside from kept features."""
        found = {
            part: features[name]
            for part in self.reader.required_inputs(index)
            if (name := f"{index}.{part}") in features
        }
        feature = found.get("feature", nothing)
        if index not in self.reader.internals_at:
            return feature, None
        before = found.get("before", nothing)
        return feature, BlockActivations(before, found.get("attention"), found.get("mlp"))

    @contextmanager
    def without_backbone(self) -> Iterator[None]:
        """While it is open the backbone is no part of the module, but for what the reader borrows.

        So what moves or stores the module leaves the backbone where it is, as training from kept
        features should. `self.backbone` still tells its bands and taps.
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
            self._modules.update(modules)  # in the old order

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Show the reader the taps of some normalised images, before training."""
        found = [self.backbone(**batch, taps=self.reader.out_indices).maps for batch in batches]
        self.reader.calibrate(
            {
                index: torch.cat([maps[at] for maps in found])
                for at, index in enumerate(self.reader.out_indices)
            }
        )

    def train(self, mode: bool = True) -> Encoder:
        """Training mode; a frozen backbone stays in evaluation mode, its statistics still."""
        super().train(mode)
        if not self.backbone_trains:
            for module in self.backbone.modules():
                if not is_inserted(module):
                    module.training = False
        return self

    def trainable_names(self) -> list[str]:
        """Names of the parameters that train, as in `named_parameters()`."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def merge(self) -> None:
        """Once, fold what was trained into the backbone's own weights, in place.

        It is another backbone from then on, with a fingerprint of its own, and what trained is
        part of it: write the adapter before.

        Raises `GeotuneError` for a method that has nothing to merge.
        """
        if self._merge is None:
            raise GeotuneError(
                "nothing to merge: what this method trains is no update of the backbone's own "
                "weights, or was merged before; lora and most of peft's tuners can be merged, once"
            )
        self._merge(self.backbone.model)
        self._merge = None
        self.merged = True
        self.backbone.fingerprint = fingerprint(self.backbone.model)


def recompute_blocks(encoder: Encoder) -> None:
    """Mark the backbone's blocks to be computed again, where gradients cross them."""
    if encoder.backbone_frozen:
        return
    for block in encoder.backbone.blocks:
        while isinstance(block, Wrapped) and block.carries:
            block = block.inner
        recompute(block)
