"""Every tuner of HF peft that changes the layers of a plain module.

    y = f_tuner(W, b, x)        W, b of a layer of the backbone stay frozen

See peft's documentation for the formula and the paper of each. By default they go where `lora`
goes. What peft leaves open is set here so that training starts from the frozen features and an
adapter can be loaded elsewhere: updates start at zero (`c3a`, `fourierft`), random choices come
from a fixed seed (`shira`), and random projections are made anew from theirs, not saved (`vera`,
`pvera`, `randlora`). Some start near the frozen features only: `unilora` and `vblora`, whose
shared vectors cannot all be zero, and those that put a weight together again from its parts, up to
rounding (`pissa`, `olora`, `hra`, `deft`).

`oft` of peft 0.21 takes every input of four axes for that of a convolution: it works on tokens,
and not on maps, as ConvNeXt's MLP gets them. `boft` compiles a CUDA extension where it finds a
compiler. `pissa` and `olora` take what they start with out of the frozen weight, by a decomposition
that is done anew where an adapter is loaded. `adalora` keeps its rank: its schedule and its penalty
are a training loop of their own. `lily` looks at the input and cannot be merged; all others can,
`beft` where the layers have a bias.

Not here, and why: `ln_tuning` is our `norm`. `frod` and `psoft` freeze singular vectors of the
weights that they neither save nor find again on another machine; `osf` keeps what it learnt by
hooks that a copy of the model loses; `adamss` needs scikit-learn and a schedule; `poly` wants a
task's index with every input; `trainable_tokens`, `shadow`, `xlora` and those that tune prompts
need a language model.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import warnings
from typing import Any, Literal, NamedTuple

from geotune.backbones.base import Backbone
from geotune.config.method_options import PeftOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.hf_peft_utils import Layer, build_encoder, inject_adapter, target_layers


class _Block(NamedTuple):
    """An option that must divide the widths of all layers: their inputs, outputs or both."""

    option: str
    most: int
    sides: Literal["inputs", "outputs", "both"]


class _Tuner(NamedTuple):
    """What geotune must know of a tuner.

    Attributes:
        kind: peft's name for it.
        rank: its option for the rank.
        limited: whether its rank cannot be wider than a layer.
        convolutions: whether it takes them, too.
        values: options that it does not have by default.
        block: an option to be fitted to the layers.
        fixed: options that are not the user's, and why.
        merges: whether it can be folded into the backbone's weights.
    """

    kind: str
    rank: str | None = None
    limited: bool = True
    convolutions: bool = False
    values: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    block: _Block | None = None
    fixed: dict[str, str] = {}  # noqa: RUF012 (never changed)
    merges: bool = True


_LORA: dict[str, Any] = {"r": 16, "lora_alpha": 16}
_SCHEDULE = "belongs to a schedule of ranks, which is not followed"

TUNERS: dict[str, _Tuner] = {
    "lora": _Tuner("LORA", "r", convolutions=True, values=_LORA),
    "dora": _Tuner("LORA", "r", convolutions=True, values=_LORA | {"use_dora": True}),
    "rslora": _Tuner("LORA", "r", convolutions=True, values=_LORA | {"use_rslora": True}),
    "pissa": _Tuner("LORA", "r", values=_LORA | {"init_lora_weights": "pissa"}),
    "olora": _Tuner("LORA", "r", values=_LORA | {"init_lora_weights": "olora"}),
    "adalora": _Tuner(
        "ADALORA",
        "init_r",
        convolutions=True,
        values={"init_r": 16, "lora_alpha": 16, "total_step": 1},
        fixed=dict.fromkeys(
            (
                *("r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
                *("orth_reg_weight", "total_step", "rank_pattern"),
            ),
            _SCHEDULE,
        ),
    ),
    "beft": _Tuner("BEFT"),
    "boft": _Tuner("BOFT", convolutions=True, block=_Block("boft_block_size", 4, "inputs")),
    "c3a": _Tuner("C3A", values={"init_weights": True}, block=_Block("block_size", 256, "both")),
    "deft": _Tuner("DEFT", "r"),
    "delora": _Tuner("DELORA", "r"),
    "fourierft": _Tuner("FOURIERFT", values={"init_weights": True}),
    "glora": _Tuner("GLORA", "r"),
    "gralora": _Tuner("GRALORA", "r"),
    "hira": _Tuner("HIRA", "r", convolutions=True),
    "hra": _Tuner("HRA", "r", convolutions=True),
    "ia3": _Tuner("IA3", convolutions=True),
    "lily": _Tuner("LILY", "r", merges=False),
    "loha": _Tuner("LOHA", "r", convolutions=True),
    "lokr": _Tuner("LOKR", "r", convolutions=True),
    "miss": _Tuner("MISS", "r"),
    # that of peft 0.21 leaves convolutions of more than one pixel neither equal at the start nor
    # equal when merged
    "oft": _Tuner(
        "OFT",
        block=_Block("oft_block_size", 32, "inputs"),
        fixed={"r": "follows from oft_block_size"},
    ),
    "peanut": _Tuner("PEANUT", "r"),
    "pvera": _Tuner("PVERA", "r", limited=False, values={"save_projection": False}),
    "randlora": _Tuner("RANDLORA", "r", values={"save_projection": False}),
    "road": _Tuner("ROAD", block=_Block("group_size", 64, "outputs")),
    "shira": _Tuner("SHIRA", "r", values={"random_seed": 0}),
    "supertuning": _Tuner("SUPERTUNING"),
    "tinylora": _Tuner("TINYLORA", "r"),
    "unilora": _Tuner("UNILORA", "r"),
    "vblora": _Tuner("VBLORA", "r", block=_Block("vector_length", 256, "both")),
    "vera": _Tuner("VERA", "r", limited=False, values={"save_projection": False}),
    "waveft": _Tuner("WAVEFT"),
}

_OURS: dict[str, str] = {
    "target_modules": "is method.targets",
    "modules_to_save": "would train layers of the backbone; choose partial or full for that",
    "fan_in_fan_out": "is for layers of language models",
    **dict.fromkeys(
        (
            *(
                "alora_invocation_tokens",
                "arrow_config",
                "ensure_weight_tying",
                "layer_replication",
            ),
            *("megatron_config", "megatron_core", "qalora_group_size", "runtime_config"),
            *("target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora"),
        ),
        "is for language models",
    ),
    **dict.fromkeys(
        (
            *("corda_config", "eva_config", "kasa_config", "loftq_config", "lora_ga_config"),
            *("monteclora_config", "velora_config"),
        ),
        "belongs to a start or a training loop of its own",
    ),
}
_STARTS_FROM_DATA = ("corda", "eva", "loftq", "lora_ga")


class Peft(PeftOptions, Method):
    """Any of HF peft's tuners inside the backbone's layers."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for options and layers that do not fit."""
        tuner, name = TUNERS[self.tuner], f"peft {self.tuner}"
        make = self._configuration()
        rank = self.rank
        if rank is None and tuner.rank is not None:
            rank = tuner.values.get(tuner.rank, make.__dataclass_fields__[tuner.rank].default)
        layers = target_layers(
            backbone,
            self.targets,
            method=name,
            convolutions=tuner.convolutions,
            rank=rank if tuner.limited else None,
        )
        targets = _in_short(backbone, list(layers))
        values = {"target_modules": targets, **tuner.values, **self._fitted(layers)}
        if tuner.rank is not None:
            values[tuner.rank] = rank
        if self.tuner == "ia3":  # scales what comes out of a layer, but what the MLP's second gets
            values["feedforward_modules"] = [t for t in targets if t.rsplit(".", 1)[-1] == "fc2"]
        try:
            with warnings.catch_warnings():
                # of what peft's own way of saving leaves out
                warnings.filterwarnings("ignore", message="Specified to not save")
                config = make(**values | self.options)
        except Exception as error:
            raise GeotuneError(f"method.options of {name}: {error}") from error
        inject_adapter(backbone, config, name)
        return build_encoder(backbone, name, self, merges=tuner.merges)

    def _configuration(self) -> Any:
        """The tuner's configuration in peft; raises `GeotuneError` for options that it lacks."""
        import peft

        tuner = TUNERS[self.tuner]
        kind = getattr(peft.PeftType, tuner.kind, None)
        if kind is None:
            raise GeotuneError(
                f"method.tuner {self.tuner}: peft {peft.__version__} has none of that name; "
                "install a newer one"
            )
        make = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        shared = {field.name for field in dataclasses.fields(peft.PeftConfig)}
        known = {field.name for field in dataclasses.fields(make)} - shared
        refused = {key: reason for key, reason in (_OURS | tuner.fixed).items() if key in known}
        if tuner.rank is not None:
            refused[tuner.rank] = "is method.rank"
        elif self.rank is not None:
            raise GeotuneError(f"method.rank {self.rank}: {self.tuner} has no rank; leave it out")
        for key, value in self.options.items():
            if key in refused:
                raise GeotuneError(f"method.options {key}: {refused[key]}")
            if key not in known:
                near = difflib.get_close_matches(key, known - refused.keys(), n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise GeotuneError(
                    f"method.options {key}: {self.tuner} has no such option{hint} It has "
                    f"{', '.join(sorted(known - refused.keys()))}"
                )
            if key == "init_lora_weights" and value in _STARTS_FROM_DATA:
                raise GeotuneError(
                    f"method.options {key} {value!r}: needs data before training; choose true, "
                    "gaussian, orthogonal or mica, or the tuner pissa or olora"
                )
        return make

    def _fitted(self, layers: dict[str, Layer]) -> dict[str, Any]:
        """The option that must divide the widths of the layers."""
        block = TUNERS[self.tuner].block
        if block is None:
            return {}
        widths = {
            width
            for layer in layers.values()
            for side, width in (
                ("outputs", layer.weight.shape[0]),
                ("inputs", layer.weight.shape[1]),
            )
            if block.sides in (side, "both")
        }
        common = math.gcd(*widths)
        return {block.option: max(d for d in range(1, block.most + 1) if common % d == 0)}


def _in_short(backbone: Backbone, names: list[str]) -> list[str]:
    """The last parts of the names where these mean the same layers: `lily` shares by them."""
    ends = {name.rsplit(".", 1)[-1] for name in names}
    meant = {n for n, _ in backbone.model.named_modules() if n.rsplit(".", 1)[-1] in ends}
    return sorted(ends) if meant == set(names) else names
