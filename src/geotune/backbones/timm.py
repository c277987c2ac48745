"""Encoders of timm: ViT, Swin, ConvNeXt, ResNet and all others.

Taps are the outputs of the blocks, recorded by forward hooks; the last is the output of
`forward_features`, including the final normalisation. Encoders of an unknown block structure are
tapped at their stages by timm's `forward_intermediates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from geotune.backbones.bands import match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import TokenLayout
from geotune.backbones.checkpoint_keys import match_keys
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import (
    adapt_input_conv,
    download_error,
    load_weights,
    not_published_error,
    read_state_dict,
)
from geotune.errors import GeotuneError
from geotune.hub.connection import quiet_hub
from geotune.types import Tap

_INPUT_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},  # ViT: position embedding resampled to the image size
    {"strict_img_size": False},  # Swin: any size
    {},
)


class _NoMapError(Exception):
    """A block's output is not a map, or it is unknown which axis has its channels."""


class TimmBackbone(Backbone):
    """A timm encoder."""

    def __init__(self, model: nn.Module, spec: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, spec, **kwargs)
        self._block_names = _find_blocks(model)
        self._output_channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self.channels_last = self._output_channels_last
        self._last_from_block = False
        self._prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
        self.token_layout = TokenLayout(self._prefix)
        self._patch = _patch_size(model) if self._is_plain() else None
        self.taps = self._find_own_taps()
        self.fingerprint = fingerprint(model)

    def _find_own_taps(self) -> tuple[Tap, ...]:
        try:
            if hasattr(self.model, "img_size_scaled") and not self.tiled:
                raise _NoMapError  # CrossViT scales every image to one size
            if self._block_names:
                try:
                    self._learn_layout()
                    taps = self.find_taps(self._block_names)
                    self._check_stages(taps)
                    return taps
                except _NoMapError:
                    self._block_names, self._last_from_block = [], False
                    self.channels_last = self._output_channels_last
            return self.find_taps(self._stage_names())
        except Exception as error:
            side = _fixed_side(self.model)
            if self.tiled or side is None:
                raise GeotuneError(
                    f"backbone.name {self.name}: gives no usable feature maps "
                    f"({type(error).__name__}: {error}); choose another model of its family",
                    code="backbone-unusable",
                    key="backbone.name",
                ) from error
            self.tiled, self.size_divisor = True, side
            self._block_names = _find_blocks(self.model)
            return self._find_own_taps()

    @torch.no_grad()
    def _learn_layout(self) -> None:
        """Find the channels in the blocks' outputs, which the model's own output need not share.

        Maps of a square image have two equal sides. Raises `_NoMapError` if the blocks differ.
        """
        shapes: dict[int, torch.Size] = {}
        size = self.size_divisor if self.tiled else 2 * self.size_divisor
        training, model = self.training, self.model
        self.eval()

        def record(index: int, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise _NoMapError
            shapes[index] = output.shape

        with torch.random.fork_rng(devices=[]):
            images = self.example(size, size)["images"]
            with _emit_outputs(self.blocks, set(range(len(self._block_names))), record):
                output = model.forward_features(images)  # type: ignore[operator]
        self.train(training)
        maps = [shape for shape in shapes.values() if len(shape) == 4]
        last = [s[1] == s[2] != s[3] for s in maps if len({*s[1:]}) > 1]
        if last:
            if any(last) != all(last):
                raise _NoMapError
            self.channels_last = last[0]
        if len(maps) == len(shapes) and output.ndim == 4:
            of_block = maps[-1][3 if self.channels_last else 1]
            of_output = output.shape[3 if self._output_channels_last else 1]
            self._last_from_block = of_block != of_output  # the model ends in another layer

    def _check_stages(self, taps: Sequence[Tap]) -> None:
        """Raise `_NoMapError` if the last block of a stage does not give the stage's output.

        As where it is one of two branches (CSPNet).
        """
        last = {tap.stride: tap.channels for tap in taps}
        info: Any = getattr(self.model, "feature_info", None) or ()
        for stage in () if self._is_plain() else info:
            if last.get(stage["reduction"], stage["num_chs"]) != stage["num_chs"]:
                raise _NoMapError

    def _is_plain(self) -> bool:
        return bool(self._block_names) and self._block_names[0].startswith("blocks.")

    def _stage_names(self) -> list[str]:
        return [str(info["module"]) for info in self.model.feature_info]  # type: ignore[union-attr]

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, first to last; empty if only stages can be tapped."""
        return [self.model.get_submodule(name) for name in self._block_names]

    def downsample_before(self, index: int) -> nn.Module | None:
        """See `Backbone.downsample_before`: `downsample` of a stage, before its first block."""
        stage, _, block = self._block_names[index].partition(".blocks.")
        if block != "0":
            return None
        module = getattr(self.model.get_submodule(stage), "downsample", None)
        return None if module is None or isinstance(module, nn.Identity) else module

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        if not self._block_names:
            for index, feature in enumerate(
                model.forward_intermediates(images, intermediates_only=True)
            ):
                if index in out_indices:
                    emit(index, feature)
            return None
        size = (images.shape[-2], images.shape[-1])
        last = len(self._block_names) - 1
        # the last map is taken after the final normalisation
        blocks = self.blocks if self._last_from_block else self.blocks[:-1]
        with _emit_outputs(
            blocks,
            out_indices,
            lambda i, output: emit(i, self._to_map(output, size, self.channels_last)),
        ):
            output = model.forward_features(images)
        if last in out_indices and not self._last_from_block:
            emit(last, self._to_map(output, size, self._output_channels_last))
        if output.ndim == 3 and self._prefix:
            tokens: Tensor = output[:, : self._prefix]
            return tokens
        return None

    def _to_map(self, output: Tensor, size: tuple[int, int], channels_last: bool) -> Tensor:
        """A block's output as `(B, C, h, w)`, without class and register tokens."""
        if output.ndim == 3:
            if self._patch is None:
                raise _NoMapError
            rows, columns = size[0] // self._patch[0], size[1] // self._patch[1]
            if output.shape[1] < rows * columns:
                raise _NoMapError
            # some models append their class token after the first blocks
            tokens = output[:, max(0, output.shape[1] - rows * columns) :]
            return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)
        return output.permute(0, 3, 1, 2) if channels_last else output


@contextmanager
def _emit_outputs(
    modules: Sequence[nn.Module], out_indices: set[int], emit: Callable[[int, Any], None]
) -> Iterator[None]:
    """Call `emit(i, output)` whenever module `i` of `out_indices` has run."""
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


def timm_backbone(spec: BackboneSpec) -> TimmBackbone:
    """Build a timm encoder by its timm name, such as `vit_small_patch16_224`.

    Raises `GeotuneError` for an unknown name and if pretrained weights are unavailable.
    """
    name, bands = spec.model, spec.bands
    if not timm.is_model(name):
        raise spec.unknown_model_error(timm.list_models())
    spec.allow_only("weights_bands", *(("new_bands",) if spec.weights_bands else ()))
    model = _create(name, in_chans=len(bands))
    note, source = None, None
    config = dict(getattr(model, "pretrained_cfg", None) or {})
    if spec.loads_weights:
        state, source = _pretrained_state(spec, config)
        state = match_keys(state, model)
        note = _fit_first_convolution(state, config, spec, source)
        load_weights(model, state, source, spec.name)
    backbone = TimmBackbone(
        model,
        spec,
        size_divisor=_size_divisor(model),
        licence=str(config.get("license") or "not stated by timm"),
        source=source,
    )
    backbone.notes = (note,) if note else ()
    return backbone


def _create(name: str, in_chans: int) -> nn.Module:
    """Create the model, for any image size if it supports that."""
    failure: Exception | None = None
    for options in _INPUT_OPTIONS:
        try:
            model = timm.create_model(
                name, pretrained=False, in_chans=in_chans, num_classes=0, **options
            )
        except TypeError as error:
            failure = error
            continue
        _call_layers(model)
        return model
    raise GeotuneError(
        f"backbone.name timm/{name}: cannot be built: {failure}",
        code="backbone-unusable",
        key="backbone.name",
    )


def _call_layers(model: nn.Module) -> None:
    """Make attention call its `qkv` layer, so that modules wrapped around the layer take effect.

    beit, eva02 and swinv2 otherwise use the layer's weight directly; timm has a switch to call
    the layer and add the bias afterwards.
    """
    for module in model.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True  # type: ignore[assignment]


def _pretrained_state(spec: BackboneSpec, config: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    if spec.weights is not None:
        return read_state_dict(spec.weights), str(spec.weights)
    hub_id = config.get("hf_hub_id") or config.get("url")
    if not hub_id:
        raise not_published_error(spec)
    try:
        with quiet_hub():
            model = timm.create_model(spec.model, pretrained=True, num_classes=0)
    except Exception as error:
        raise download_error(spec, str(hub_id), error) from error
    return dict(model.state_dict()), f"hub: {hub_id}"


def _fit_first_convolution(
    state: dict[str, Tensor], config: dict[str, Any], spec: BackboneSpec, source: str
) -> str | None:
    """Adapt the first layer in `state` to the images' bands; returns a note for the user."""
    bands, own_bands = spec.bands, spec.weights_bands
    names = config.get("first_conv") or ()
    note = None
    for name in (names,) if isinstance(names, str) else names:
        key = f"{name}.weight"
        if key not in state:
            continue
        if own_bands is not None:
            if state[key].shape[1] != len(own_bands):
                raise GeotuneError(
                    f"backbone.weights_bands: found {', '.join(own_bands)}, but {key} of {source} "
                    f"has {state[key].shape[1]} bands; name each of them, in order",
                    code="weights-mismatch",
                    key="backbone.weights_bands",
                )
            match = match_bands(spec, own_bands)
            state[key], note = match.fit_weight(state[key]), match.note or None
            continue
        if state[key].shape[1] == len(bands) != 3:
            continue  # the checkpoint already has these bands
        if state[key].shape[1] != 3:
            raise GeotuneError(
                f"{source}: {key} has {state[key].shape[1]} bands, expected 3 (to be adapted) or "
                f"{len(bands)} ({', '.join(bands)}); name its bands with backbone.weights_bands",
                code="weights-mismatch",
                key="backbone.weights",
            )
        state[key], note = adapt_input_conv(state[key], bands)
    return note


def _find_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks, first to last; empty for an unknown structure."""
    if hasattr(model, "blocks") and hasattr(model, "num_prefix_tokens"):
        return [f"blocks.{i}" for i, _ in enumerate(model.blocks)]  # type: ignore[arg-type]
    for container in ("layers", "stages"):
        stages = getattr(model, container, None)
        if isinstance(stages, Iterable) and all(hasattr(stage, "blocks") for stage in stages):
            if any(hasattr(stage, "conv_transition") for stage in stages):
                return []  # CSPNet: the blocks are one branch of a stage
            return [
                f"{container}.{i}.blocks.{j}"
                for i, stage in enumerate(stages)
                for j, _ in enumerate(stage.blocks)
            ]
    if all(hasattr(model, f"layer{i}") for i in range(1, 5)):
        return [
            f"layer{i}.{j}" for i in range(1, 5) for j, _ in enumerate(getattr(model, f"layer{i}"))
        ]
    return []


def _patch_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of a token in pixels; of a hybrid, with the stride of its convolutions."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if patch is None:
        return None
    ratio = getattr(embed, "feat_ratio", None)
    if callable(ratio):
        patch = ratio(as_scalar=False)
    return (patch, patch) if isinstance(patch, int) else (int(patch[0]), int(patch[1]))


def _fixed_side(model: nn.Module) -> int | None:
    """Image side of a model of a fixed size."""
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return int(size[-1]) if size and size[-1] == size[-2] else None


def _size_divisor(model: nn.Module) -> int:
    """The patch size of a ViT, else the coarsest stride."""
    patch = _patch_size(model)
    if patch is not None and hasattr(model, "num_prefix_tokens"):
        return math.lcm(*patch)
    return max(int(info["reduction"]) for info in model.feature_info)  # type: ignore[union-attr]
