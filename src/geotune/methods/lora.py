"""LoRA (arXiv 2106.09685) by HF peft, put into the backbone's own layers.

    y = W x + (alpha / rank) B A x        A: rank x inputs, random;  B: outputs x rank, zero

By default on query, value and both layers of the MLP, as arXiv 2504.17397 does; where they have
other names, on all linear layers of the blocks; on convolutions where there are none.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from geotune.backbones.base import Backbone
from geotune.methods.base import Encoder, Levels, Method, freeze, level_indices, require_alive
from geotune.types import GeotuneError

_ATTENTION_AND_MLP = ("qkv", "q", "v", "q_proj", "v_proj", "query", "value", "fc1", "fc2")
_ADAPTER = "default"


class Lora(Method):
    """Low-rank updates inside the backbone's linear layers and convolutions (HF peft).

    Attributes:
        rank: width of the update.
        alpha: its scale is `alpha / rank`.
        dropout: on the update's input.
        targets: last parts of the layer names to update; by default query, value and MLP.
    """

    rank: PositiveInt = 16
    alpha: PositiveFloat = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: list[str] | None = None

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` where no layer fits or one stays dead."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        if any(isinstance(module, LoraLayer) for module in backbone.modules()):
            raise GeotuneError(
                f"lora on {backbone.name}: it carries lora already; build the backbone anew"
            )
        names = self._target_names(backbone)
        freeze(backbone)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=names,
            init_lora_weights=True,
        )
        inject_adapter_in_model(config, backbone.model, adapter_name=_ADAPTER)
        for layer in backbone.modules():
            if isinstance(layer, LoraLayer):
                for part in (layer.lora_A, layer.lora_B, layer.lora_dropout):
                    _mark_inserted(part)
        encoder = Encoder(
            backbone,
            Levels(backbone, level_indices(backbone)),
            stem=self.stem,
            constant_backbone=False,
            merge=_merge,
        )
        return require_alive(encoder, "lora")

    def _target_names(self, backbone: Backbone) -> list[str]:
        """Full names of the layers to update, inside `backbone.model`."""
        names = {module: name for name, module in backbone.model.named_modules()}
        layers = {
            names[layer]: layer
            for block in backbone.blocks or [backbone.model]
            for layer in block.modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
            and "rel_pos" not in names[layer]  # positions, not features
        }
        if self.targets is not None:
            chosen = [n for n in layers if any(n == t or n.endswith(f".{t}") for t in self.targets)]
            if not chosen:
                ends = sorted({name.rsplit(".", 1)[-1] for name in layers})
                raise GeotuneError(
                    f"method.targets {', '.join(self.targets)}: no layer of {backbone.name} is "
                    f"called so; it has {', '.join(ends)}"
                )
        else:
            linear = [n for n, layer in layers.items() if isinstance(layer, nn.Linear)]
            chosen = (
                [n for n in layers if _is_usual(n)]
                or linear
                or [n for n, layer in layers.items() if self._fits(layer)]
            )
        if not chosen:
            raise GeotuneError(
                f"lora on {backbone.name}: found no linear layer or plain convolution to update; "
                "name layers with method.targets or choose another method"
            )
        for name in chosen:
            widest = _width(layers[name])
            if self.rank > widest:
                raise GeotuneError(
                    f"method.rank {self.rank}: {name} of {backbone.name} is only {widest} wide; "
                    f"choose at most {widest}"
                )
        return chosen

    def _fits(self, layer: nn.Linear | nn.Conv2d) -> bool:
        return getattr(layer, "groups", 1) == 1 and _width(layer) >= self.rank


def _is_usual(name: str) -> bool:
    """Whether a layer is of attention or MLP by its name, or stands in a row called `mlp`."""
    *_, parent, last = ("", "", *name.split("."))
    return last in _ATTENTION_AND_MLP or parent == "mlp"


def _width(layer: nn.Linear | nn.Conv2d) -> int:
    """The smaller of a layer's inputs and outputs: no update can have a higher rank."""
    return min(layer.weight.shape[0], layer.weight.shape[1])


def _mark_inserted(module: nn.Module) -> None:
    for part in module.modules():
        part.geotune_inserted = True  # type: ignore[assignment]


def _merge(model: nn.Module) -> None:
    """Add each update to the weight it belongs to, and put the plain layer back in its place."""
    from peft.tuners.lora import LoraLayer

    layers = [
        (name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in layers:
        merging: Any = layer
        merging.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, merging.get_base_layer())
