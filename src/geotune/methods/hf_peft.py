"""Every tuner of HF peft that changes the layers of plain modules.

    y = f_tuner(W, b, x)        weight W and bias b of a layer of the backbone stay frozen

Formula and paper of each tuner are in peft's documentation. By default they adapt the same layers
as `lora`. Some defaults differ from peft's, so that training starts from the frozen features and
adapters load on any machine: updates start at zero (`c3a`, `fourierft`), random choices use a fixed
seed (`shira`), and random projections are recomputed from their seed, not saved (`vera`, `pvera`,
`randlora`). Some tuners start only near the frozen features: `unilora` and `vblora`, whose shared
vectors cannot all be zero, and those that recompose a weight from its factors, up to rounding
(`pissa`, `olora`, `hra`, `deft`).

Limitations: `oft` of peft 0.21 takes every 4-d input for that of a convolution, so it fails on
ConvNeXt's MLP, which reads maps. `boft` compiles a CUDA extension if it finds a compiler. `pissa`
and `olora` decompose the frozen weight, again whenever an adapter is loaded. `adalora` keeps its
rank, because its schedule and penalty need a training loop of their own. `lily` depends on the
input and cannot be merged; all others can, `beft` only if the layers have a bias.

Not supported: `ln_tuning` is our `norm`; `frod` and `psoft` freeze singular vectors that they do
not save and cannot reproduce on another machine; `osf` stores its update in hooks that copies of
the model lose; `adamss` needs scikit-learn and a schedule; `poly` needs a task index for every
input; `trainable_tokens`, `shadow`, `xlora` and prompt tuners need a language model.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, Literal, NamedTuple

from geotune.backbones.base import Backbone
from geotune.config.method_options import PeftOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.fused_qkv import join_all_qkv
from geotune.methods.core.hf_peft_utils import build_encoder, inject_adapter
from geotune.methods.core.target_layers import Layer, target_layers
from geotune.utils.text import did_you_mean


class _BlockSize(NamedTuple):
    """A block size that must divide the widths of all layers: their inputs, outputs or both."""

    option: str
    maximum: int
    sides: Literal["inputs", "outputs", "both"]


class _Tuner(NamedTuple):
    """How geotune configures a tuner.

    Attributes:
        peft_type: peft's name of it.
        rank: its option for the rank.
        rank_limited: the rank must not exceed the width of a layer.
        convolutions: it supports convolutions, too.
        defaults: options that differ from peft's defaults.
        block_size: an option to fit to the layers' widths.
        fixed: options that users cannot set, with the reason.
        mergeable: it can be folded into the backbone's weights.
    """

    peft_type: str
    rank: str | None = None
    rank_limited: bool = True
    convolutions: bool = False
    defaults: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    block_size: _BlockSize | None = None
    fixed: dict[str, str] = {}  # noqa: RUF012 (never changed)
    mergeable: bool = True


_LORA: dict[str, Any] = {"r": 16, "lora_alpha": 16}
_SCHEDULE = "is part of a rank schedule, which geotune does not run"

TUNERS: dict[str, _Tuner] = {
    "lora": _Tuner("LORA", "r", convolutions=True, defaults=_LORA),
    "dora": _Tuner("LORA", "r", convolutions=True, defaults=_LORA | {"use_dora": True}),
    "rslora": _Tuner("LORA", "r", convolutions=True, defaults=_LORA | {"use_rslora": True}),
    "pissa": _Tuner("LORA", "r", defaults=_LORA | {"init_lora_weights": "pissa"}),
    "olora": _Tuner("LORA", "r", defaults=_LORA | {"init_lora_weights": "olora"}),
    "adalora": _Tuner(
        "ADALORA",
        "init_r",
        convolutions=True,
        defaults={"init_r": 16, "lora_alpha": 16, "total_step": 1},
        fixed=dict.fromkeys(
            (
                *("r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
                *("orth_reg_weight", "total_step", "rank_pattern"),
            ),
            _SCHEDULE,
        ),
    ),
    "beft": _Tuner("BEFT"),
    "boft": _Tuner(
        "BOFT", convolutions=True, block_size=_BlockSize("boft_block_size", 4, "inputs")
    ),
    "c3a": _Tuner(
        "C3A", defaults={"init_weights": True}, block_size=_BlockSize("block_size", 256, "both")
    ),
    "deft": _Tuner("DEFT", "r"),
    "delora": _Tuner("DELORA", "r"),
    "fourierft": _Tuner("FOURIERFT", defaults={"init_weights": True}),
    "glora": _Tuner("GLORA", "r"),
    "gralora": _Tuner("GRALORA", "r"),
    "hira": _Tuner("HIRA", "r", convolutions=True),
    "hra": _Tuner("HRA", "r", convolutions=True),
    "ia3": _Tuner("IA3", convolutions=True),
    "lily": _Tuner("LILY", "r", mergeable=False),
    "loha": _Tuner("LOHA", "r", convolutions=True),
    "lokr": _Tuner("LOKR", "r", convolutions=True),
    "miss": _Tuner("MISS", "r"),
    # no convolutions: with kernels above 1x1, oft of peft 0.21 neither starts at the frozen
    # features nor merges correctly
    "oft": _Tuner(
        "OFT",
        block_size=_BlockSize("oft_block_size", 32, "inputs"),
        fixed={"r": "is determined by oft_block_size"},
    ),
    "peanut": _Tuner("PEANUT", "r"),
    "pvera": _Tuner("PVERA", "r", rank_limited=False, defaults={"save_projection": False}),
    "randlora": _Tuner("RANDLORA", "r", defaults={"save_projection": False}),
    "road": _Tuner("ROAD", block_size=_BlockSize("group_size", 64, "outputs")),
    "shira": _Tuner("SHIRA", "r", defaults={"random_seed": 0}),
    "supertuning": _Tuner("SUPERTUNING"),
    "tinylora": _Tuner("TINYLORA", "r"),
    "unilora": _Tuner("UNILORA", "r"),
    "vblora": _Tuner("VBLORA", "r", block_size=_BlockSize("vector_length", 256, "both")),
    "vera": _Tuner("VERA", "r", rank_limited=False, defaults={"save_projection": False}),
    "waveft": _Tuner("WAVEFT"),
}

_RESERVED_OPTIONS: dict[str, str] = {
    "target_modules": "use method.targets instead",
    "modules_to_save": "would train backbone layers; use method.kind=partial or full instead",
    "fan_in_fan_out": "applies to language models only",
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
        "applies to language models only",
    ),
    **dict.fromkeys(
        (
            *("corda_config", "eva_config", "kasa_config", "loftq_config", "lora_ga_config"),
            *("monteclora_config", "velora_config"),
        ),
        "needs an initialisation or training loop that geotune does not run",
    ),
}
_DATA_DRIVEN_INITS = ("corda", "eva", "loftq", "lora_ga")


class Peft(PeftOptions, Method):
    """Any of HF peft's tuners inside the backbone's layers."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        tuner, name = TUNERS[self.tuner], f"peft {self.tuner}"
        config_class = self._config_class()
        rank = self.rank
        if rank is None and tuner.rank is not None:
            default = config_class.__dataclass_fields__[tuner.rank].default
            rank = tuner.defaults.get(tuner.rank, default)
        layers = target_layers(
            backbone,
            self.targets,
            method=name,
            convolutions=tuner.convolutions,
            rank=rank if tuner.rank_limited else None,
        )
        targets = _short_names(backbone, list(layers))
        values = {"target_modules": targets, **tuner.defaults, **self._block_size(layers)}
        if tuner.rank is not None:
            values[tuner.rank] = rank
        if self.tuner == "ia3":  # scales layer outputs, but the input of the MLP's second layer
            values["feedforward_modules"] = [t for t in targets if t.rsplit(".", 1)[-1] == "fc2"]
        try:
            with warnings.catch_warnings():
                # about files that peft would save
                warnings.filterwarnings("ignore", message="Specified to not save")
                config = config_class(**values | self.options)
        except Exception as error:
            join_all_qkv(backbone.model)
            raise _options_error(f"method.options of {name}: {error}") from error
        inject_adapter(backbone, config, name)
        return build_encoder(backbone, name, self, mergeable=tuner.mergeable)

    def _config_class(self) -> Any:
        """Return the tuner's configuration class in peft, after checking `options` and `rank`."""
        import peft

        tuner = TUNERS[self.tuner]
        peft_type = getattr(peft.PeftType, tuner.peft_type, None)
        if peft_type is None:
            raise GeotuneError(
                f"method.tuner {self.tuner}: not in the installed peft {peft.__version__}; install "
                "a newer one",
                code="dependency-missing",
                key="method.tuner",
            )
        config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
        shared = {field.name for field in dataclasses.fields(peft.PeftConfig)}
        known = {field.name for field in dataclasses.fields(config_class)} - shared
        reserved = {k: why for k, why in (_RESERVED_OPTIONS | tuner.fixed).items() if k in known}
        if tuner.rank is not None:
            reserved[tuner.rank] = "use method.rank instead"
        elif self.rank is not None:
            raise GeotuneError(
                f"method.rank {self.rank}: {self.tuner} has no rank; remove it",
                code="method-option-invalid",
                key="method.rank",
            )
        for key, value in self.options.items():
            if key in reserved:
                raise _options_error(f"method.options.{key}: {reserved[key]}", key)
            if key not in known:
                allowed = known - reserved.keys()
                hint = did_you_mean(key, allowed)
                raise _options_error(
                    f"method.options.{key}: unknown option of {self.tuner}{hint}; it has "
                    f"{', '.join(sorted(allowed))}",
                    key,
                )
            if key == "init_lora_weights" and value in _DATA_DRIVEN_INITS:
                raise _options_error(
                    f"method.options.{key} {value!r}: needs data before training; choose true, "
                    "gaussian, orthogonal or mica, or the tuner pissa or olora",
                    key,
                )
        return config_class

    def _block_size(self, layers: dict[str, Layer]) -> dict[str, Any]:
        """Return the largest block size that divides the widths of all layers."""
        block_size = TUNERS[self.tuner].block_size
        if block_size is None:
            return {}
        widths = {
            width
            for layer in layers.values()
            for side, width in (
                ("outputs", layer.weight.shape[0]),
                ("inputs", layer.weight.shape[1]),
            )
            if block_size.sides in (side, "both")
        }
        divisor = math.gcd(*widths)
        size = max(d for d in range(1, block_size.maximum + 1) if divisor % d == 0)
        return {block_size.option: size}


def _options_error(message: str, option: str | None = None) -> GeotuneError:
    key = "method.options" + (f".{option}" if option else "")
    return GeotuneError(message, code="method-option-invalid", key=key)


def _short_names(backbone: Backbone, names: list[str]) -> list[str]:
    """Return the last parts of the names if they match the same layers: `lily` shares by them."""
    ends = {name.rsplit(".", 1)[-1] for name in names}
    matches = {n for n, _ in backbone.model.named_modules() if n.rsplit(".", 1)[-1] in ends}
    return sorted(ends) if matches == set(names) else names
