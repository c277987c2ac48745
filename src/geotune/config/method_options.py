"""Options of the tuning methods: the recipe's `method` section and the methods' constructors.

Each method inherits its options, `class Est(EstOptions, Method)`, so every option is declared here
and nowhere else. Formulas and papers are in the methods' own files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from geotune.config.base import OptionsModel, Registered
from geotune.registry import METHODS

Dropout = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["fp32", "bf16", "int8"]
Targets = Annotated[
    list[str] | None,
    Field(
        description="layers to update, by the last part of their names; by default query, value "
        "and both layers of the MLP"
    ),
]
BlockStride = Annotated[
    PositiveInt | None,
    Field(
        description="read every n-th block of a stage; by default 1 up to 12 blocks, 2 up to 24, "
        "else 3"
    ),
]


class MethodOptions(OptionsModel):
    """Options that every method has.

    Attributes:
        fits: the backbones it can be attached to, for `geotune list methods`.
    """

    fits: ClassVar[str] = "not stated"

    kind: str = ""
    stem_width: NonNegativeInt = Field(
        default=32,
        multiple_of=4,
        description="channels, at stride 2, of the convolutional branch on the image, a multiple "
        "of 4; 0: no such branch, as with decoders that do not read it (global_pool)",
    )
    frozen_precision: Precision = Field(
        default="fp32",
        description="storage type of the backbone's frozen weights; others train in float32",
    )

    @property
    def name(self) -> str:
        """Its `kind` in recipes, else the name of the class."""
        return self.kind or type(self).__name__


class FullOptions(MethodOptions):
    """Full fine-tuning: trains every parameter that can change the output."""

    fits: ClassVar[str] = "every backbone"

    kind: Literal["full"] = "full"


class FrozenOptions(MethodOptions):
    """Trains only the decoder (and the stem); with the linear decoder: linear probing."""

    fits: ClassVar[str] = "every backbone"

    kind: Literal["frozen"] = "frozen"


class BitFitOptions(MethodOptions):
    """Trains only the bias terms of the backbone."""

    fits: ClassVar[str] = "backbones with bias terms"

    kind: Literal["bitfit"] = "bitfit"


class NormOptions(MethodOptions):
    """Trains only the scales and shifts of the backbone's normalisation layers."""

    fits: ClassVar[str] = "backbones with normalisation layers"

    kind: Literal["norm"] = "norm"


class PartialOptions(MethodOptions):
    """Trains only the last blocks of the backbone."""

    fits: ClassVar[str] = "backbones with accessible blocks"

    kind: Literal["partial"] = "partial"
    blocks: PositiveInt = Field(
        default=1, description="number of blocks that train, counted from the last"
    )


class LoraOptions(MethodOptions):
    """Low-rank updates of the backbone's linear layers and convolutions (HF peft)."""

    fits: ClassVar[str] = "backbones with linear layers or dense convolutions"

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = Field(default=16, description="rank of the update")
    alpha: PositiveFloat = Field(default=16, description="the update is scaled by alpha / rank")
    dropout: Dropout = Field(default=0.0, description="dropout probability on the update's input")
    targets: Targets = None


class PeftOptions(MethodOptions):
    """Any of HF peft's tuners inside the backbone's layers."""

    fits: ClassVar[str] = "linear layers in the blocks; some tuners also convolutions"

    kind: Literal["peft"] = "peft"
    tuner: Literal[
        "lora", "dora", "rslora", "pissa", "olora", "adalora", "beft", "boft", "c3a", "deft",
        "delora", "fourierft", "glora", "gralora", "hira", "hra", "ia3", "lily", "loha", "lokr",
        "miss", "oft", "peanut", "pvera", "randlora", "road", "shira", "supertuning", "tinylora",
        "unilora", "vblora", "vera", "waveft",
    ] = Field(default="dora", description="peft's name of the tuner")  # fmt: skip
    rank: PositiveInt | None = Field(
        default=None,
        description="rank, if the tuner has one; by default 16 for lora and its variants, "
        "otherwise peft's default",
    )
    targets: Targets = None
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="further keys of the tuner's peft configuration, such as {lora_dropout: 0.1}",
    )


class SslOptions(MethodOptions):
    """Scales the inputs of the backbone's layers (subspace scaling)."""

    fits: ClassVar[str] = "backbones with linear layers or dense convolutions"

    kind: Literal["ssl"] = "ssl"
    targets: Targets = None


class SsbOptions(MethodOptions):
    """Scales inputs and outputs of the backbone's layers (subspace scaling)."""

    fits: ClassVar[str] = "backbones with linear layers or dense convolutions"

    kind: Literal["ssb"] = "ssb"
    targets: Targets = None


class SlrOptions(MethodOptions):
    """Scaled low-rank updates of the blocks' layers and of the patch embedding."""

    fits: ClassVar[str] = "backbones with linear layers or dense convolutions"

    kind: Literal["slr"] = "slr"
    rank: PositiveInt = Field(default=16, description="rank of the update")
    targets: Annotated[
        list[str] | None,
        Field(
            description="layers to update, by the last part of their names; by default all linear "
            "layers of the blocks"
        ),
    ] = None
    patch_embedding: bool = Field(
        default=True, description="also update the convolution that cuts the image into patches"
    )


class MoloraOptions(MethodOptions):
    """Several low-rank updates of each linear layer, weighted by a router for each token."""

    fits: ClassVar[str] = "backbones with linear layers in the blocks"

    kind: Literal["molora"] = "molora"
    experts: Annotated[int, Field(ge=2)] = Field(
        default=4, description="low-rank updates of each layer"
    )
    rank: PositiveInt = Field(default=4, description="rank of each expert")
    alpha: PositiveFloat = Field(default=4, description="updates are scaled by alpha / rank")
    targets: Targets = None


class AuroraOptions(MethodOptions):
    """Updates of all linear layers from factors that the layers share."""

    fits: ClassVar[str] = "accessible blocks with linear layers (no ResNet)"

    kind: Literal["aurora"] = "aurora"
    rank: PositiveInt = Field(default=64, description="side R of the shared core R x R x R")
    scale: PositiveFloat = Field(default=1.0, description="factor on the updates")
    dropout: Dropout = Field(default=0.1, description="dropout probability inside the updates")


class MpoOptions(MethodOptions):
    """The auxiliary tensors of each linear layer's matrix product operator train."""

    fits: ClassVar[str] = "backbones with linear layers in the blocks"

    kind: Literal["mpo"] = "mpo"
    tensors: Annotated[int, Field(ge=3)] = Field(
        default=5, description="tensors of a weight; odd, the central one stays frozen"
    )
    targets: Targets = None


class VptOptions(MethodOptions):
    """Learned prompt tokens beside the image's tokens in the blocks of a plain ViT."""

    fits: ClassVar[str] = "plain ViTs without pairwise position biases"

    kind: Literal["vpt"] = "vpt"
    depth: Literal["shallow", "deep"] = Field(
        default="deep",
        description="deep: each block has its own prompts; shallow: the first block's prompts pass "
        "through all blocks",
    )
    num_prompts: PositiveInt = Field(default=100, description="prompt tokens of a block")
    dropout: Dropout = Field(default=0.1, description="dropout probability on the prompts")


class AdapterOptions(MethodOptions):
    """Bottlenecks after attention and after the MLP of every block."""

    fits: ClassVar[str] = "backbones with accessible blocks"

    kind: Literal["adapter"] = "adapter"
    bottleneck_dim: PositiveInt = Field(default=64, description="channels of the bottleneck")


class AdaptFormerOptions(MethodOptions):
    """Bottlenecks parallel to the MLP of every block."""

    fits: ClassVar[str] = "blocks with an MLP: transformers and ConvNeXt"

    kind: Literal["adaptformer"] = "adaptformer"
    bottleneck_dim: PositiveInt = Field(default=64, description="channels of the bottleneck")
    scale: PositiveFloat = Field(default=0.1, description="factor on the bottleneck's output")


class LoRandOptions(MethodOptions):
    """Bottlenecks whose weights are sums of low-rank products."""

    fits: ClassVar[str] = "backbones with accessible blocks"

    kind: Literal["lorand"] = "lorand"
    bottleneck_dim: PositiveInt = Field(default=64, description="channels of the bottleneck")
    rank: PositiveInt = Field(default=8, description="side of the kernels; at most bottleneck_dim")
    branches: PositiveInt = Field(default=4, description="number of products that sum to a weight")


class MonaOptions(MethodOptions):
    """Bottlenecks with convolutions of three sizes, after attention and after the MLP."""

    fits: ClassVar[str] = "backbones with accessible blocks and spatial tokens"

    kind: Literal["mona"] = "mona"
    bottleneck_dim: PositiveInt = Field(default=64, description="channels of the bottleneck")
    dropout: Dropout = Field(
        default=0.1, description="dropout probability before the up-projection"
    )


class ReinOptions(MethodOptions):
    """Learnt tokens that refine the output of every block."""

    fits: ClassVar[str] = "backbones with accessible blocks and spatial tokens"

    kind: Literal["rein"] = "rein"
    num_tokens: Annotated[int, Field(ge=2)] = Field(
        default=100, description="tokens of each block; the first adds nothing"
    )
    rank: PositiveInt = Field(default=16, description="rank of the tokens of a block")


class EarthAdapterOptions(MethodOptions):
    """Bottlenecks after every block; in the last blocks also on low and high frequencies."""

    fits: ClassVar[str] = "backbones with accessible blocks and spatial tokens"

    kind: Literal["earth_adapter"] = "earth_adapter"
    bottleneck_dim: PositiveInt = Field(default=64, description="channels of the bottlenecks")
    frequency_blocks: NonNegativeInt = Field(
        default=3, description="number of blocks, counted from the last, that split frequencies"
    )
    cutoff: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3,
        description="highest low frequency, as a fraction of the highest one of the shorter side",
    )
    scale: PositiveFloat = Field(
        default=0.1, description="initial factor on what the bottlenecks add"
    )


class VitAdapterOptions(MethodOptions):
    """A convolutional prior exchanges features with a plain ViT and yields a pyramid."""

    fits: ClassVar[str] = "plain ViTs with spatial tokens"

    kind: Literal["vit_adapter"] = "vit_adapter"
    train_backbone: bool = Field(
        default=False, description="also train the backbone, as in the paper"
    )
    interactions: PositiveInt = Field(
        default=4, description="number of evenly spaced exchanges between prior and ViT"
    )
    conv_inplane: PositiveInt = Field(default=64, description="channels of the prior's stem")
    points: PositiveInt = Field(
        default=4, description="sampling points of each attention head in each feature map"
    )
    num_heads: PositiveInt | None = Field(
        default=None, description="attention heads; by default as many as leave each 32 channels"
    )
    ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="width of the attention values, as a fraction of the ViT's"
    )
    cffn_ratio: PositiveFloat = Field(
        default=0.25,
        description="hidden width of the extractors' feed-forward, as a fraction of the ViT's",
    )
    extra_extractors: bool = Field(
        default=True, description="two more extractors after the last exchange"
    )


class SideTuneOptions(MethodOptions):
    """A small convolutional network on the image, blended with the frozen features."""

    fits: ClassVar[str] = "every backbone"

    kind: Literal["sidetune"] = "sidetune"
    width: PositiveInt = Field(
        default=32,
        description="channels of the first convolution; they double with every halving of the map, "
        "up to 8 times",
    )


class LstOptions(MethodOptions):
    """Ladder side-tuning: a small transformer on the outputs of the frozen blocks."""

    fits: ClassVar[str] = "every backbone; init: pruned needs blocks of a transformer"

    kind: Literal["lst"] = "lst"
    reduction: PositiveInt = Field(
        default=8,
        description="the side stream has C / reduction channels for a tap of C; at least 8 (or C)",
    )
    block_stride: BlockStride = None
    init: Literal["random", "pruned"] = Field(
        default="random",
        description="initial weights; pruned: those of the backbone's most important channels, for "
        "which its blocks must be usual transformer blocks",
    )


class E3vaOptions(MethodOptions):
    """Low-rank adapters on a parallel path, fed by attention and MLP of each block."""

    fits: ClassVar[str] = "blocks with an MLP (no ResNet) and spatial tokens"

    kind: Literal["e3va"] = "e3va"
    rank: PositiveInt = Field(default=16, description="rank of the adapters")


class DtlOptions(MethodOptions):
    """A low-rank side stream of the blocks' inputs, fed back late or not at all."""

    fits: ClassVar[str] = "backbones with accessible blocks and spatial tokens"

    kind: Literal["dtl"] = "dtl"
    rank: PositiveInt = Field(
        default=2, description="rank of each block's contribution to the stream"
    )
    kernel_size: PositiveInt = Field(
        default=3, description="of the depthwise feedback convolution; odd"
    )
    feedback_from: PositiveInt | None = Field(
        default=None,
        description="first block, counted from 1, that receives feedback; gradients cross the "
        "blocks after it; by default the last block, so that no gradient crosses the backbone",
    )


class UniptOptions(MethodOptions):
    """Attention from the last block's features to those of the earlier frozen blocks."""

    fits: ClassVar[str] = "every backbone of two or more blocks"

    kind: Literal["unipt"] = "unipt"
    reduction: PositiveInt = Field(
        default=8,
        description="the side network has C / reduction channels for a last tap of C; at least 8 "
        "(or C)",
    )
    block_stride: BlockStride = None


class SherlOptions(MethodOptions):
    """Merged features of the early blocks are the input of the frozen late blocks."""

    fits: ClassVar[str] = "plain ViTs with accessible blocks and spatial tokens"

    kind: Literal["sherl"] = "sherl"
    reduction: PositiveInt = Field(
        default=8,
        description="features are merged at C / reduction channels for blocks of C; at least 8 "
        "(or C)",
    )
    late_blocks: PositiveInt | None = Field(
        default=None,
        description="number of blocks, counted from the last, that run on the merged features; "
        "gradients cross these alone; by default a sixth of the blocks, at least one",
    )


class LosaOptions(MethodOptions):
    """Low-rank mixers of channels and tokens refine the outputs of the frozen blocks."""

    fits: ClassVar[str] = "every backbone"

    kind: Literal["losa"] = "losa"
    rank: PositiveInt = Field(default=16, description="rank of the mixers")
    block_stride: BlockStride = None


class EstOptions(MethodOptions):
    """Efficient side-tuning: a small network parallel to the frozen backbone."""

    fits: ClassVar[str] = "every backbone; use_block_internals needs blocks with an MLP"

    kind: Literal["est"] = "est"
    reduction: PositiveInt = Field(
        default=8, description="the side stream has C / reduction channels for a tap of C channels"
    )
    min_width: PositiveInt = Field(
        default=64, description="minimum channels of the side stream (at most those of the tap)"
    )
    output: Literal["sum", "side"] | None = Field(
        default=None,
        description="decoder input; sum: frozen features plus the up-projected stream, which "
        "starts equal to method frozen; side: the stream plus a 1x1 projection of the frozen "
        "features, which keeps the decoder small; by default sum with a decoder for whole images, "
        "else side",
    )
    block_stride: BlockStride = None
    use_block_internals: bool = Field(
        default=False, description="also read what attention and MLP of each block add"
    )
    gate: Literal["dynamic", "static"] = Field(
        default="dynamic",
        description="gate values; dynamic: per pixel and channel, static: per channel",
    )
    adapters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        default=(2, 4, 8),
        description="divisors n: each block has an adapter d / n wide for a stream of d; with "
        "fusion: spatial all adapters have the width of the first",
    )
    fusion: Literal["widths", "spatial"] = Field(
        default="widths",
        description="how a block's adapters differ; widths: each of another width; spatial: each "
        "on the map pooled at another of pool_rates, with a common up-projection",
    )
    pool_rates: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        default=(1, 2, 4), description="down-sampling rates of the adapters with fusion: spatial"
    )
    kernel_size: PositiveInt = Field(default=3, description="of the depthwise convolution; odd")
    projection_init: Literal["random", "pca", "pca_fixed"] = Field(
        default="random",
        description="initial projection to the stream's width; pca: principal components of the "
        "taps on training images; pca_fixed: the same, not trained, which makes cached features "
        "smaller",
    )


class PythonMethodOptions(MethodOptions):
    """A method of your own: a class in a Python file."""

    fits: ClassVar[str] = "as its class decides"

    kind: str = Field(
        default="python/FILE.py:CLASS",
        pattern=r"^python/.+\.py:[A-Za-z_]\w*$",
        description="the file and the class",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="further keys of the class, such as {rank: 4}"
    )


if TYPE_CHECKING:
    MethodSection = (
        FullOptions
        | FrozenOptions
        | BitFitOptions
        | NormOptions
        | PartialOptions
        | LoraOptions
        | PeftOptions
        | SslOptions
        | SsbOptions
        | SlrOptions
        | MoloraOptions
        | AuroraOptions
        | MpoOptions
        | VptOptions
        | AdapterOptions
        | AdaptFormerOptions
        | LoRandOptions
        | MonaOptions
        | ReinOptions
        | EarthAdapterOptions
        | VitAdapterOptions
        | SideTuneOptions
        | LstOptions
        | E3vaOptions
        | DtlOptions
        | UniptOptions
        | SherlOptions
        | LosaOptions
        | EstOptions
        | PythonMethodOptions
    )
else:
    MethodSection = Annotated[MethodOptions, Registered(METHODS, PythonMethodOptions)]
