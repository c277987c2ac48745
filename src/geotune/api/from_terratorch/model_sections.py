"""Backbone, method and decoder of a recipe from the `model` section of TerraTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geotune.api.from_terratorch.config_section import ConfigSection
from geotune.api.init.draft import Draft
from geotune.errors import GeotuneError
from geotune.registry import BACKBONE_PROVIDERS, METHODS
from geotune.terratorch.names import OPTIONS, PREFIX, split_method
from geotune.utils.text import similar_names

FACTORY = "EncoderDecoderFactory"
RENAMED = {"pretrained": "pretrained", "patch_size": "patch_size", **OPTIONS}
"""Options of TerraTorch's backbones, and their keys in the section `backbone`."""


class ModelArguments:
    """`model_args` by part: those of the backbone, the decoder and the head.

    TerraTorch takes them with the prefixes `backbone_`, `decoder_` and `head_`, or in `*_kwargs`.
    """

    def __init__(self, args: ConfigSection) -> None:
        self.args = args
        self.parts = {part: self._part(part) for part in ("backbone", "decoder", "head")}

    def _part(self, part: str) -> dict[str, Any]:
        inner = self.args.take(f"{part}_kwargs", {})
        prefix = f"{part}_"
        flat = {
            key.removeprefix(prefix): self.args.take(key)
            for key in self.args.values
            if key.startswith(prefix) and key != f"{part}_kwargs"
        }
        return {**(inner if isinstance(inner, Mapping) else {}), **flat}

    def take(self, part: str, key: str, default: Any = None) -> Any:
        """An argument of a part, which is then taken over."""
        value = self.parts[part].pop(key, None)
        return default if value is None else value

    def rest(self) -> list[tuple[str, Any]]:
        """Arguments that nothing has taken."""
        return [
            (self.args.key(f"{part}_{key}"), value)
            for part, values in self.parts.items()
            for key, value in values.items()
            if value not in (None, [], {}, "")
        ]


def set_model(draft: Draft, task: ConfigSection, args: ModelArguments, *, images: bool) -> None:
    """Set backbone, method and decoder.

    Args:
        draft: the recipe.
        task: `model.init_args`.
        args: its `model_args`.
        images: the task is for whole images.

    Raises `GeotuneError` for another model factory, and for an unknown backbone.
    """
    if task.take("model_factory") != FACTORY:
        raise task.error(
            "model_factory", f"{FACTORY}, the only factory with parts that geotune has"
        )
    _set_backbone(draft, args)
    _set_method(draft, task, args)
    _set_decoder(draft, args, images=images)


def _set_backbone(draft: Draft, args: ModelArguments) -> None:
    given = str(args.args.take("backbone", ""))
    method, name = _split_name(given)
    known = _geotune_name(name)
    if known is None:
        from geotune.backbones.terratorch.terratorch_provider import MODELS

        near = similar_names(name, MODELS, count=3)
        hint = f"; similar: {', '.join(near)}" if near else ""
        raise GeotuneError(
            f"{args.args.file}: {args.args.key('backbone')}: found {given!r}, expected a backbone "
            f"that geotune knows (geotune list backbones){hint}",
            code="backbone-unknown",
            key=args.args.key("backbone"),
            file=args.args.file,
        )
    draft.set("backbone.name", known, f"TerraTorch: {given}")
    if method:
        draft.set("method.kind", method)
    for key, ours in RENAMED.items():
        value = args.take("backbone", key)
        if value is not None:
            draft.set(f"backbone.{ours}", value)
    draft.set("backbone.pretrained", bool(draft.values["backbone"].get("pretrained", bool(method))))


def _split_name(name: str) -> tuple[str, str]:
    """Method and backbone of `geotune_METHOD__BACKBONE`; an empty method for other names."""
    start = f"{PREFIX}_"
    return (name.startswith(start) and split_method(name.removeprefix(start))) or ("", name)


def _geotune_name(name: str) -> str | None:
    """geotune's name of a backbone of TerraTorch; None if it has none."""
    import timm

    from geotune.backbones.terratorch.terratorch_provider import MODELS

    if name.removeprefix("terratorch_") in MODELS:
        return f"terratorch/{name.removeprefix('terratorch_')}"
    if timm.is_model(name.removeprefix("timm_")):
        return f"timm/{name.removeprefix('timm_')}"
    provider, _, rest = name.partition("_")
    own = provider in BACKBONE_PROVIDERS and provider not in ("terratorch", "timm", "python")
    return f"{provider}/{rest}" if own and rest else None


def _set_method(draft: Draft, task: ConfigSection, args: ModelArguments) -> None:
    frozen = bool(task.take("freeze_backbone", False))
    kind = draft.values["method"].get("kind")
    peft = args.args.section("peft_config")
    if kind is not None:
        fields = METHODS[kind].load_options().model_fields
        for name in [*args.parts["backbone"]]:
            if name in fields:
                draft.set(f"method.{name}", args.take("backbone", name))
    elif peft.values:
        _set_peft(draft, peft)
    else:
        draft.set(
            "method.kind",
            "frozen" if frozen else "full",
            "TerraTorch: freeze_backbone"
            if frozen
            else "TerraTorch trains the whole backbone; est trains a small network beside it",
        )
    if "stem_width" not in draft.values["method"]:
        draft.set("method.stem_width", 0, "TerraTorch has no stem, which adds finer maps")


def _set_peft(draft: Draft, peft: ConfigSection) -> None:
    name = str(peft.take("method", ""))
    if name.upper() != "LORA":
        raise peft.error("method", "LORA; other tuners: method.kind peft in the recipe")
    options = peft.section("peft_config_kwargs")
    draft.set("method.kind", "lora", "TerraTorch: peft_config")
    draft.set("method.rank", options.take("r", 8))
    draft.set("method.alpha", options.take("lora_alpha", 8))
    draft.set("method.dropout", options.take("lora_dropout", 0.0))
    targets = options.take("target_modules")
    split = peft.take("replace_qkv")
    if targets is not None:
        names = [targets] if isinstance(targets, str) else [str(each) for each in targets]
        own = {"q_linear", "k_linear", "v_linear"}
        if split and own & set(names):
            comment = f"TerraTorch: {', '.join(names)} of {split}; here all three"
            names = [str(split), *(each for each in names if each not in own)]
            draft.set("method.targets", names, comment)
        else:
            draft.set("method.targets", names)


def _set_decoder(draft: Draft, args: ModelArguments, *, images: bool) -> None:
    given = str(args.args.take("decoder", ""))
    name = given.removeprefix("terratorch_").removeprefix("smp_").lower().removesuffix("decoder")
    necks = args.args.take("necks", [])
    comment = f"TerraTorch: {given or 'none'}"
    if isinstance(necks, Sequence) and necks:
        listed = ", ".join(
            str(neck.get("name", neck)) for neck in necks if isinstance(neck, Mapping)
        )
        comment += f" after {listed}, which geotune does without: its decoders resample the maps"
    channels = args.take("decoder", "channels")
    values: dict[str, Any]
    if images:
        values = {"kind": "global_pool", "dropout": args.take("head", "dropout", 0.0)}
    elif name == "fcn":
        depth = args.take("decoder", "num_convs", 4)
        values = {"kind": "fcn", "channels": channels or 256, "depth": depth}
        values |= {"levels": "last", "upsample": True}
    elif name == "linear":
        upsample = args.take("decoder", "upsampling_size", "stride")
        values = {"kind": "linear", "levels": "last", "upsample": upsample}
    elif name == "identity":
        values = {"kind": "linear", "levels": "last"}
    elif name == "upernet":
        values = {"kind": "upernet", "channels": channels or 256}
    else:
        values = {"kind": "unet"}
        if isinstance(channels, Sequence) and not isinstance(channels, str):
            values["channels"] = list(channels)
        if name != "unet":
            comment += "; geotune has no such decoder"
    for key, value in values.items():
        draft.set(f"decoder.{key}", value, comment if key == "kind" else "")
