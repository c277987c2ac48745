"""The contract that every tuning method keeps: a backbone in, an encoder out.

A method decides two things: what of the backbone changes (or what is put into it), and what is
made of its taps. The second is a `Reader`: it is handed each tap as soon as the backbone has
produced it, so that a feature map need not outlive its use. Methods that change the backbone read
the taps as they are (`Levels`); side networks make their own stream of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from torch import Tensor, nn

from geotune.backbones.anatomy import as_maps, no_places
from geotune.backbones.base import Backbone, from_tiles, pad_to_multiple
from geotune.catalog import METHODS
from geotune.methods.precision import Precision, hold_frozen
from geotune.methods.stem import Stem
from geotune.types import FeatureMaps, GeotuneError, Tap


class Method(BaseModel, ABC):
    """How a backbone is adapted: options, and `attach`.

    A recipe's `method` section has the fields of these classes; `recipe/methods.py` reads them
    from their files. Raises `GeotuneError` for an unknown option and for a value that cannot be.

    Attributes:
        stem: width of the convolutional branch on the image; 0 for none.
        frozen_precision: in which the backbone's frozen weights are held; what trains is float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fits: ClassVar[str] = "every backbone"
    """What it can be attached to, for `geotune list methods`."""

    stem: NonNegativeInt = 32
    frozen_precision: Precision = "fp32"

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise GeotuneError(
                "; ".join(
                    f"method.{'.'.join(map(str, fault['loc']))} {fault['input']!r}: {fault['msg']}"
                    for fault in error.errors()
                )
            ) from error

    @property
    def name(self) -> str:
        """What it is called in recipes."""
        own = f"{type(self).__module__}:{type(self).__name__}"
        return next((kind for kind, place in METHODS.items() if place == own), own)

    @abstractmethod
    def attach(self, backbone: Backbone) -> Encoder:
        """Build the encoder. Raises `GeotuneError` where the method does not fit the backbone."""


def attach(backbone: Backbone, method: Method) -> Encoder:
    """Adapt a backbone by a method: `attach(backbone("timm/resnet18", bands=6), Est())`."""
    return method.attach(backbone)


Part = Literal["feature", "before", "attention", "mlp"]
"""What a reader may read of a tap: its map, and what is in `Inside`."""


@dataclass(frozen=True)
class Inside:
    """What happened in one block, as maps `(B, C, h, w)` (see `backbones/anatomy.py`).

    Attributes:
        before: the stream that the block got; finer than the tap, and of other width, where the
            block itself goes to the next stage (in a ResNet).
        attention, mlp: what each added to the stream. A block with an MLP alone adds all of it
            by the MLP; both are None in a block without either.
    """

    before: Tensor
    attention: Tensor | None
    mlp: Tensor | None


class Reader(nn.Module):
    """What is made of a backbone's taps.

    Attributes:
        wanted: indices of the taps it reads, ascending.
        looks_inside: indices of those of whose blocks it wants the inside, too.
        taps: what it hands on, fine to coarse (or, from a plain ViT, all of one stride).
        samples: it is to see that many images before training, by `calibrate`.
    """

    wanted: tuple[int, ...]
    looks_inside: tuple[int, ...] = ()
    taps: tuple[Tap, ...]
    samples: int = 0

    def start(self, images: Tensor) -> Any:
        """The state before the first tap, from the padded images `(B, C, H, W)`."""
        return None

    def reads(self, index: int) -> tuple[Part, ...]:
        """What `step` reads of tap `index`: no more of it is kept in a cache of features."""
        if index in self.looks_inside:
            return ("feature", "before", "attention", "mlp")
        return ("feature",)

    def reduced(self, index: int, feature: Tensor) -> Tensor:
        """What `step` gets in place of tap `index`: a function of the tap that never trains."""
        return feature

    def reduction(self) -> nn.Module | None:
        """What `reduced` computes with, where it was fitted to data."""
        return None

    def borrowed(self) -> list[nn.Module]:
        """Layers of the backbone that it runs itself."""
        return []

    def forward(self, state: Any, index: int, feature: Tensor, inside: Inside | None = None) -> Any:
        """As `step`: called, so that hooks see what is the reader's."""
        return self.step(state, index, feature, inside)

    @abstractmethod
    def step(self, state: Any, index: int, feature: Tensor, inside: Inside | None = None) -> Any:
        """Take tap `index`, `(B, C, h, w)`, and the block's inside. Returns the new state.

        From a cache, what `reads` does not name is empty.
        """

    @abstractmethod
    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """The maps to hand on, one for each of `taps`."""

    def calibrate(self, features: Mapping[int, Tensor]) -> None:
        """Fit what is fitted to data, from the taps of some images."""


class Encoder(nn.Module):
    """A backbone with a method: images in, a feature pyramid out.

    Attributes:
        taps: what `forward` returns, for decoders to be built from.
        constant_backbone: true where nothing in or before the backbone trains, so that its
            features can be computed once and kept.

    Args:
        backbone: whose parameters train or not by now, with what the method put in.
        reader: of its taps.
        method: whose `stem` and `frozen_precision` it gets.
        constant_backbone: see above.
        backbone_trains: its statistics move, as in training from scratch.
        merge: folds what was trained into `backbone.model`.
    """

    def __init__(
        self,
        backbone: Backbone,
        reader: Reader,
        method: Method | None = None,
        *,
        constant_backbone: bool,
        backbone_trains: bool = False,
        merge: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reader = reader
        self.method = method
        stem = method.stem if method else 0
        self.stem = Stem(len(backbone.bands) * backbone.timesteps, stem) if stem else None
        if method and method.frozen_precision != "fp32":
            hold_frozen(backbone, method.frozen_precision)
        self.constant_backbone = constant_backbone
        self.backbone_trains = backbone_trains
        self._merge = merge
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
        images = self.backbone.join(images)
        padded = pad_to_multiple(images, self.backbone.pad_to)
        state = self.reader.start(padded)

        def take(index: int, feature: Tensor, inside: Inside | None) -> None:
            nonlocal state
            state = self.reader(state, index, feature, inside)

        tokens = None
        if features is None:
            tokens = self._run(images, time, location, take)
        else:
            for index in self.reader.wanted:
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

        The names are `<tap>.<part>`, such as `11.feature`. Good for as long as `constant_backbone`
        is true and nothing is calibrated.
        """
        kept: dict[str, Tensor] = {}

        def take(index: int, feature: Tensor, inside: Inside | None) -> None:
            for part in self.reader.reads(index):
                found = feature if part == "feature" else getattr(inside, part)
                if found is not None:  # a block may have no attention
                    kept[f"{index}.{part}"] = found

        self._run(self.backbone.join(images), time, location, take)
        return kept

    def _run(
        self,
        images: Tensor,
        time: Tensor | None,
        location: Tensor | None,
        take: Callable[[int, Tensor, Inside | None], None],
    ) -> Tensor | None:
        """Run the backbone and have each wanted tap taken at once. Returns its tokens."""
        reader = self.reader
        tracking = torch.is_grad_enabled()

        def on_tap(index: int, feature: Tensor) -> Tensor:
            inside = seen.pop(index)(feature) if index in seen else None
            with torch.set_grad_enabled(tracking):
                take(index, reader.reduced(index, feature), inside)
            return feature.new_empty(0)  # the reader keeps what it needs

        with (
            torch.set_grad_enabled(tracking and not self.constant_backbone),
            looking_inside(self.backbone, reader.looks_inside) as seen,
        ):
            found: FeatureMaps = self.backbone(
                images, time=time, location=location, taps=reader.wanted, on_tap=on_tap
            )
        return found.tokens

    def _kept(
        self, features: Mapping[str, Tensor], index: int, nothing: Tensor
    ) -> tuple[Tensor, Inside | None]:
        """A tap and the block's inside from kept features."""
        found = {
            part: features[name]
            for part in self.reader.reads(index)
            if (name := f"{index}.{part}") in features
        }
        feature = found.get("feature", nothing)
        if index not in self.reader.looks_inside:
            return feature, None
        before = found.get("before", nothing)
        return feature, Inside(before, found.get("attention"), found.get("mlp"))

    @contextmanager
    def without_backbone(self) -> Iterator[None]:
        """While it is open the backbone is no part of the module, but for what the reader borrows.

        So what moves or stores the module leaves the backbone where it is, as training from kept
        features should. `self.backbone` still tells its bands and taps.
        """
        modules = dict(self._modules)
        backbone = self._modules.pop("backbone")
        object.__setattr__(self, "backbone", backbone)
        self._modules["borrowed"] = nn.ModuleList(self.reader.borrowed())
        try:
            yield
        finally:
            object.__delattr__(self, "backbone")
            self._modules.clear()
            self._modules.update(modules)  # in the old order

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Show the reader the taps of some normalised images, before training."""
        found = [self.backbone(**batch, taps=self.reader.wanted).maps for batch in batches]
        self.reader.calibrate(
            {
                index: torch.cat([maps[at] for maps in found])
                for at, index in enumerate(self.reader.wanted)
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

        Raises `GeotuneError` for a method that has nothing to merge.
        """
        if self._merge is None:
            raise GeotuneError(
                "nothing to merge: what this method trains is no update of the backbone's own "
                "weights, or was merged before; lora and most of peft's tuners can be merged, once"
            )
        self._merge(self.backbone.model)
        self._merge = None


def is_inserted(module: nn.Module) -> bool:
    """Whether a module was put into the backbone by a method, and so follows its mode."""
    return bool(getattr(module, "geotune_inserted", False))


@contextmanager
def looking_inside(
    backbone: Backbone, indices: Sequence[int]
) -> Iterator[dict[int, Callable[[Tensor], Inside]]]:
    """While it is open, `found[i](map)` gives the inside of block `i` that has given this map."""
    found: dict[int, Callable[[Tensor], Inside]] = {}
    streams: dict[tuple[int, str], Tensor] = {}
    hooks: list[Any] = []

    def watch(index: int) -> None:
        block, parts = backbone.blocks[index], backbone.parts(index)

        def keep(place: str) -> Callable[..., None]:
            def hook(_module: nn.Module, inputs: Any, named: Any) -> None:
                streams[index, place] = inputs[0] if inputs else named["x"]

            return hook

        def after(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            before, middle = streams.pop((index, "before")), streams.pop((index, "middle"), None)

            def inside(feature: Tensor) -> Inside:
                def to_map(stream: Tensor) -> Tensor:
                    tiles = as_maps(backbone, index, stream).mean
                    stride = backbone.taps[index].stride  # the stream's own may be another
                    rows, columns = (round(side / stride) for side in backbone.canvas)
                    grid = feature.shape[-2] // rows, feature.shape[-1] // columns
                    return from_tiles(tiles, grid)

                def change(start: Tensor, end: Tensor) -> Tensor:
                    return to_map(end - start.reshape(end.shape))

                stream = to_map(before)
                if middle is not None:
                    return Inside(stream, change(before, middle), change(middle, output))
                return Inside(stream, None, change(before, output) if parts.mlp else None)

            found[index] = inside

        hooks.append(block.register_forward_pre_hook(keep("before"), with_kwargs=True))
        if parts.middle is not None:
            seer = block.get_submodule(parts.middle)
            hooks.append(seer.register_forward_pre_hook(keep("middle"), with_kwargs=True))
        hooks.append(block.register_forward_hook(after))

    if indices and (not backbone.blocks or (backbone.plain and backbone.tokens is None)):
        raise no_places(backbone, "looking inside")
    try:
        for index in indices:
            watch(index)
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class Levels(Reader):
    """Reads chosen taps as they are."""

    def __init__(self, backbone: Backbone, wanted: Sequence[int]) -> None:
        super().__init__()
        self.wanted = tuple(wanted)
        self.taps = tuple(backbone.taps[i] for i in wanted)

    def step(self, state: Any, index: int, feature: Tensor, inside: Inside | None = None) -> Any:
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


def probe(encoder: Encoder) -> Tensor:
    """A random sum of an encoder's maps of a small random image; the same one every time."""
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            size = 2 * encoder.backbone.pad_to
            inputs = {k: v.to(device) for k, v in encoder.backbone.example(size, size).items()}
            total = sum((m * torch.randn(m.shape).to(m)).sum() for m in encoder(**inputs).maps)
    finally:
        encoder.train(training)
    assert isinstance(total, Tensor)
    return total


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
    gradients = torch.autograd.grad(
        probe(encoder), [parameters[n] for n in names], allow_unused=True
    )
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
