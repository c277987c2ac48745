"""Average adapters that were trained apart (FedAvg, McMahan et al., arXiv 1602.05629)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geotune.adapter_config import AdapterConfig, TrainingImages, load_adapter_config
from geotune.adapter_io import read_tensors, write_adapter
from geotune.api.average_tensors import average_states, pooled_variance, weighted_mean
from geotune.config import parse_sections
from geotune.config.decoder_options import ProbeOptions
from geotune.errors import GeotuneError
from geotune.hub.download import adapter_source
from geotune.training.run_dir import changed_values
from geotune.utils.atomic import make_folder
from geotune.utils.text import join_some

PRODUCTS = ("lora", "rslora", "pissa", "olora", "adalora", "dora")
"""Tuners of `peft` whose updates are products that this averages."""

FACTORED = ("molora", "slr", "aurora", "mpo", "dtl", "lorand", "rein", "ssb")
"""Methods with other products of trained tensors, whose factors are averaged one by one."""

FIXED_AXES = {"est": "encoder.reader.down.", "mpo": ".start_"}
"""In the names of fixed orthogonal tensors: principal axes of EST with `pca_fixed`, and the
decomposition of the weights by `mpo`."""

FROM_IMAGES = ("gsd", "wavelengths", "mean", "std", "pixel_m")
"""Keys of a recipe whose values come from the training images where it does not state them."""

SHARES_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AverageResult:
    """An average that was written.

    Attributes:
        folder: of its adapter.
        weights: share of each adapter, of sum 1.
        adapter_bytes: size of the tensors' file.
        lost: of each low-rank update of the average, by the name of its first factor, the share of
            its Frobenius norm that the rank of the adapters cannot hold.
        notes: what a user should know of the average.
    """

    folder: Path
    weights: tuple[float, ...]
    adapter_bytes: int
    lost: dict[str, float]
    notes: tuple[str, ...]


def average(
    adapters: Sequence[Path | str], out: Path | str, *, weights: Sequence[float] | None = None
) -> AverageResult:
    """Average adapters of one base model and recipe, weighted, into an adapter in `out`.

    Trained tensors and means of batch norm are averaged, its variances pooled by the law of total
    variance. Low-rank updates of `lora` and `peft` are averaged as products and factorised again by
    a singular value decomposition, because the mean of the factors belongs to another matrix.
    Thresholds that were chosen on the validation data of one adapter are left out.

    Args:
        adapters: run folders, folders with `adapter.json` and `adapter.safetensors`, or adapters on
            the hub, `hub:ORG/NAME[@REVISION]`; two or more.
        out: folder for the average.
        weights: the number of training images of each adapter, or shares of sum 1; equal by
            default.

    Raises `GeotuneError` for adapters of other base weights or recipes, for other normalisations or
    resolutions, for tensors with values that are not finite, for classifiers that were fitted to
    features (`decoder.kind` knn, logistic), for weights that do not fit, and if `out` contains an
    adapter.
    """
    sources, target = [adapter_source(each) for each in adapters], Path(out)
    folders = [source.folder for source in sources]
    shares = _shares(weights, len(folders))
    configs = [load_adapter_config(folder) for folder in folders]
    _check_trained(folders[0], configs[0])
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        _check_equal(folders[0], configs[0], folder, config)
    if target.exists() and any(target.iterdir()):
        raise GeotuneError(
            f"{target}: the folder is not empty; choose another one",
            code="output-exists",
            file=target,
        )
    states = [read_tensors(f, config) for f, config in zip(folders, configs, strict=True)]
    for folder, state in zip(folders[1:], states[1:], strict=True):
        _check_tensors(folders[0], states[0], folder, state)
        _check_fixed_axes(configs[0], folders[0], states[0], folder, state)
    mean, lost = average_states(states, shares)
    make_folder(target)
    size = write_adapter(target, mean, _average_configs(configs, shares))
    of_hub = tuple(f"adapter: {source}" for source in sources if source.reference is not None)
    return AverageResult(target, shares, size, lost, (*of_hub, *_notes(configs, lost)))


def _shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The weights as shares of sum 1. Raises `GeotuneError` for unusable ones."""
    if count < 2:
        raise GeotuneError(
            f"found {count} adapter, expected two or more to average", code="option-invalid"
        )
    if weights is None:
        return (1 / count,) * count
    shown = ", ".join(f"{weight:g}" for weight in weights)
    problem = ""
    if len(weights) != count:
        problem = f"found {len(weights)} ({shown}) for {count} adapters; give one for each"
    elif not all(math.isfinite(weight) and weight > 0 for weight in weights):
        problem = f"found {shown}; expected positive numbers: leave an adapter of weight 0 out"
    elif all(weight < 1 for weight in weights) and abs(sum(weights) - 1) > SHARES_TOLERANCE:
        problem = f"shares {shown} sum to {sum(weights):g}, expected 1; or give numbers of images"
    if problem:
        raise GeotuneError(f"weights: {problem}", code="option-invalid", key="weights")
    return tuple(weight / sum(weights) for weight in weights)


def _check_trained(folder: Path, config: AdapterConfig) -> None:
    """Raise `GeotuneError` for a classifier that holds or was fitted to its own features."""
    decoder = parse_sections(config.sections, str(folder)).decoder
    if isinstance(decoder, ProbeOptions):
        raise GeotuneError(
            f"{folder}: decoder.kind {decoder.kind} was fitted to the features of its own images, "
            "which have no average; train a linear or global_pool decoder",
            code="adapter-mismatch",
            key="decoder.kind",
            file=folder,
        )


def _check_equal(first: Path, one: AdapterConfig, second: Path, other: AdapterConfig) -> None:
    """Raise `GeotuneError` if two adapters are not of the same base, recipe and normalisation."""
    for key in ("name", "fingerprint"):
        if one.base[key] != other.base[key]:
            raise GeotuneError(
                f"{second}: the base model's {key} is {other.base[key]}, that of {first} is "
                f"{one.base[key]}; only adapters of the same base weights have an average: train "
                "all of them with the same backbone.name and backbone.weights",
                code="adapter-base",
                key=f"backbone.{'name' if key == 'name' else 'weights'}",
                file=second,
            )
    changed = changed_values(one.sections, other.sections)
    changed = [c for c in changed if not c.startswith("backbone.weights:")]  # a path of each site
    if changed:
        keys = [change.partition(":")[0] for change in changed]
        of_images = [key for key in keys if key.rpartition(".")[2] in FROM_IMAGES]
        stated = (
            f" that states {', '.join(of_images)}: without it the value comes from the images of "
            "a site"
            if of_images
            else ""
        )
        raise GeotuneError(
            f"{second}: of another recipe than {first} ({join_some(changed, 5)}); train the "
            f"adapters with one recipe{stated}",
            code="adapter-mismatch",
            key=keys[0],
            file=second,
        )
    if one.normalization != other.normalization:
        raise GeotuneError(
            f"{second}: the normalisation of its images differs from that of {first} "
            f"({_normalization_difference(one, other)}), so equal tensors would mean different "
            "things; train with the same values: "
            "data.normalize=backbone, or a mean and standard deviation for each band",
            code="adapter-mismatch",
            key="data.normalize",
            file=second,
        )

    ours, theirs = one.prediction.resolution_m, other.prediction.resolution_m
    if ours != theirs:
        metres = ("its own" if side is None else f"{side:g} m" for side in (theirs, ours))
        raise GeotuneError(
            f"{second}: trained at another resolution than {first} ({' and '.join(metres)} per "
            "pixel); train with the same data.resolution_m",
            code="adapter-mismatch",
            key="data.resolution_m",
            file=second,
        )


def _normalization_difference(one: AdapterConfig, other: AdapterConfig) -> str:
    """The first band whose offset or scale differs, or the bands."""
    a, b = one.normalization, other.normalization
    if a.bands != b.bands:
        return f"bands {', '.join(b.bands)} and {', '.join(a.bands)}"
    for band, *values in zip(a.bands, b.offset, b.scale, a.offset, a.scale, strict=True):
        if values[:2] != values[2:]:
            theirs, ours = (f"offset {o:g}, scale {s:g}" for o, s in (values[:2], values[2:]))
            return f"{band}: {theirs}, and {ours}"
    return "other options"


def _check_tensors(
    first: Path, state: Mapping[str, Tensor], second: Path, other: Mapping[str, Tensor]
) -> None:
    shapes, others = (
        {k: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for k, t in s.items()}
        for s in (state, other)
    )
    if shapes != others:
        differing = [
            f"{name}: {others.get(name, 'missing')}, in {first} {shapes.get(name, 'missing')}"
            for name in sorted({*shapes, *others})
            if shapes.get(name) != others.get(name)
        ]
        raise GeotuneError(
            f"{second}: tensors of other shapes or types ({join_some(differing, 3)}); train the "
            "adapters with one recipe and one version of geotune",
            code="adapter-mismatch",
            file=second,
        )


def _check_fixed_axes(
    config: AdapterConfig,
    first: Path,
    state: Mapping[str, Tensor],
    second: Path,
    other: Mapping[str, Tensor],
) -> None:
    """Raise `GeotuneError` if fixed orthogonal tensors of two adapters differ."""
    method = config.sections["method"]
    kind = str(method.get("kind"))
    part = FIXED_AXES.get(kind)
    if part is None or (kind == "est" and method.get("projection_init") != "pca_fixed"):
        return
    names = [name for name in state if part in name]
    differing = [name for name in names if not torch.equal(state[name], other[name])]
    if differing:
        own = (
            "method.projection_init is pca_fixed, so its axes are those of its own images"
            if kind == "est"
            else "mpo decomposed the weights in another way on another machine"
        )
        raise GeotuneError(
            f"{second}: {own} ({join_some(differing, 2)} differ from those of {first}); a mean of "
            "axes is no decomposition: start all adapters from one (geotune fit --from)",
            code="adapter-mismatch",
            key="method",
            file=second,
        )


def _average_configs(configs: Sequence[AdapterConfig], shares: Sequence[float]) -> AdapterConfig:
    """The first adapter's config, without what its own validation data chose."""
    first = configs[0]
    images = [config.prediction.images for config in configs]
    settings: dict[str, Any] = {"score_thresholds": {}, "class_thresholds": [], "novelty": None}
    if all(image is not None for image in images):
        settings["images"] = _pooled([i for i in images if i is not None], shares)
    return replace(first, prediction=first.prediction.model_copy(update=settings))


def _pooled(images: Sequence[TrainingImages], shares: Sequence[float]) -> TrainingImages:
    """What the training images of all adapters were like."""
    means = [torch.tensor(image.mean, dtype=torch.float64) for image in images]
    variances = [torch.tensor(image.std, dtype=torch.float64) ** 2 for image in images]
    sides = [image.pixel_m for image in images if image.pixel_m is not None]
    return images[0].model_copy(
        update={
            "mean": weighted_mean(means, shares).tolist(),
            "std": pooled_variance(variances, means, shares).sqrt().tolist(),
            "dtypes": sorted({dtype for image in images for dtype in image.dtypes}),
            "pixel_m": (min(s[0] for s in sides), max(s[1] for s in sides)) if sides else None,
        }
    )


def _notes(configs: Sequence[AdapterConfig], lost: Mapping[str, float]) -> tuple[str, ...]:
    notes, config = [], configs[0]
    for key in ("window", "bands", "nodata", "quality"):
        values = [getattr(each.prediction, key) for each in configs]
        if any(value != values[0] for value in values):
            notes.append(
                f"the adapters differ in data.{key}; predictions of the average use that of the "
                f"first: {values[0]}"
            )
    if lost:
        notes.append(
            f"{len(lost)} low-rank updates averaged as products; their rank holds all but "
            f"{max(lost.values()):.1%} of the norm of each"
        )
    kind = str(config.sections["method"].get("kind"))
    tuner = str(config.sections["method"].get("tuner", ""))
    if kind in FACTORED or (kind == "peft" and tuner not in PRODUCTS):
        notes.append(
            f"{f'{kind} {tuner}'.strip()} multiplies trained tensors: the average of its tensors "
            "is not the average of its updates"
        )
    if tuner == "dora":
        notes.append(
            "dora scales the outputs of its products by magnitudes, which are averaged by "
            "themselves: the average is close to that of the updates, not equal to it"
        )
    if config.sections["method"].get("projection_init") == "pca":
        notes.append(
            "method.projection_init is pca: unless these adapters started from one (geotune fit "
            "--from), each began at the principal axes of its own images, and their average may "
            "be worse than any of them"
        )
    if config.prediction.score_thresholds or config.prediction.class_thresholds:
        notes.append(
            "thresholds were chosen on one adapter's validation data and are left out: set them in "
            "geotune predict"
        )
    return tuple(notes)
