"""Fit a classifier to the features of a frozen backbone, in place of a training.

1. Sample vectors of training cells or images, evenly over the classes, by the recipe's seed.
2. Fit: logistic regression for several C (scikit-learn), or keep the vectors for their neighbours.
3. Predict the validation windows once with every C or k and every share of the classes'
   frequencies; the best by the metric that selects epochs is kept.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geotune.adapter_io import adapter_state, save_tensors
from geotune.config import TrainOptions
from geotune.config.decoder_options import ProbeOptions
from geotune.data.datamodule import DataModule
from geotune.decoders.probe import KnnProbe, LogisticProbe, Probe
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel
from geotune.feature_cache.build_cache import build_cache
from geotune.memory.measure import PeakMonitor
from geotune.model import Model, resize_outputs
from geotune.training.loaders import WindowDataset, make_loader
from geotune.training.run_dir import RunDir
from geotune.training.step import micro_batch_size
from geotune.training.trainer import TrainerResult, resolve_monitor
from geotune.training.training_module import lower_is_better
from geotune.types import IGNORE, Batch
from geotune.utils.code_hash import training_code
from geotune.utils.precision import autocast
from geotune.utils.progress import OnProgress

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NEIGHBOURS = (1, 3, 7, 15, 31)
PRIOR_SHARES = (0.0, 0.5, 1.0)
"""How much of the logarithm of the classes' frequencies is added to the logits."""
MAX_WINDOWS = 2048
"""Training windows from which vectors are sampled, evenly spread."""
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class _Sample:
    """Training vectors `(N, D)` with their classes `(N,)`, and how often each class occurs."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class FittedProbe:
    """A fitted classifier.

    Attributes:
        result: of the fit, as of a training.
        options: of the decoder, with what was chosen.
    """

    result: TrainerResult
    options: ProbeOptions


def fit_probe(
    built: BuiltModel,
    data: DataModule,
    train: TrainOptions,
    run_dir: RunDir,
    *,
    device: torch.device,
    on_start: Callable[[], None],
    on_message: Callable[[str], None],
    on_progress: OnProgress,
) -> FittedProbe:
    """Fit the decoder of a model, which is a `Probe`, and write the history and the tensors.

    Args:
        built: model and task; its decoder is replaced.
        data: all splits.
        train: of the recipe: `seed`, `monitor`, `cache`, `batch_size`, `precision`, `workers`.
        run_dir: to write to.
        device: for the computation of features.
        on_start: called once all settings are checked, before anything is written.
        on_message: receives messages for the user.
        on_progress: receives windows.

    Raises `GeotuneError` if scikit-learn is missing, or if there is only one class in training.
    """
    model, probe = built.model, built.model.decoder
    assert isinstance(probe, Probe)
    monitor = resolve_monitor(built, train)
    if monitor == "loss":
        raise GeotuneError(
            f"train.monitor: found loss, but {probe.options.kind} has none; name a metric",
            code="recipe-invalid",
            key="train.monitor",
        )
    if isinstance(probe, LogisticProbe):
        _check_sklearn()
    on_start()
    started, peak, code = time.perf_counter(), PeakMonitor(device), training_code()
    micro = micro_batch_size(train.batch_size, train.accumulate_steps, 1)
    groups = {scene.group for scene in data.train_grid.scenes}
    train_windows: WindowDataset = data.train_grid.subset(groups, MAX_WINDOWS)
    val_windows: WindowDataset = data.val
    cache = None
    if train.cache != "none":
        cache = build_cache(
            model,
            data,
            train,
            batch_size=micro,
            device=device,
            on_message=on_message,
            on_progress=partial(on_progress, "features"),
        )
        train_windows, val_windows = cache.train, cache.val
    model.to(device).eval()
    loaded = partial(_batches, model, train=train, micro=micro, device=device)
    sample = _draw(
        loaded(train_windows, on_progress=partial(on_progress, "training windows")),
        probe,
        np.random.default_rng(train.seed),
    )
    probe.mean.copy_(torch.from_numpy(sample.vectors.mean(axis=0)))
    probe.std.copy_(torch.from_numpy(sample.vectors.std(axis=0).clip(min=1e-6)))
    candidates = _candidates(probe, sample)
    metrics, choice = _select(
        built,
        probe,
        candidates,
        _log_prior(sample, probe.num_outputs),
        loaded(val_windows, on_progress=partial(on_progress, "evaluation")),
        monitor,
    )
    name, value, share = choice
    on_message(
        f"{probe.options.kind}: fitted to {len(sample.labels)} vectors; in validation "
        f"{name}={value:g} with {share:g} of the classes' log frequencies is best"
    )
    options, final = _final(probe, candidates[value], sample, {name: value})
    final.log_prior.copy_(share * _log_prior(sample, probe.num_outputs))
    model.decoder = final.to(device)
    row = {"epoch": 1.0, "step": 1.0, "seconds": time.perf_counter() - started}
    row |= {f"val/{key}": each for key, each in metrics.items()}
    run_dir.write_history([row])
    save_tensors(run_dir.best_weights, adapter_state(model))
    return FittedProbe(
        TrainerResult(
            [row],
            0,
            train.accumulate_steps,
            peak.peak(),
            device,
            resumed=False,
            main_process=True,
            cache=cache,
            code=(code,),
        ),
        options,
    )


def _check_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise GeotuneError(
            "decoder.kind logistic: requires scikit-learn: pip install 'geotune[bench]'",
            code="dependency-missing",
            key="decoder.kind",
        ) from error


def _batches(
    model: Model,
    windows: WindowDataset,
    *,
    train: TrainOptions,
    micro: int,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> Iterator[tuple[Tensor, Any, tuple[int, int], tuple[int, int]]]:
    """Vectors `(B, D, h, w)`, targets, and the sizes of the padded and of the real images."""
    probe, done = model.decoder, 0
    assert isinstance(probe, Probe)
    with torch.no_grad():
        for loaded in make_loader(windows, micro, workers=train.workers):
            batch: Batch = loaded.to(device)
            with autocast(device, train.precision):
                maps, size = model.encode(**batch.inputs)
            yield probe.vectors(maps), batch.targets, maps.image_size, size
            done += len(batch)
            on_progress(done, len(windows))


def cell_labels(
    targets: Tensor, padded: tuple[int, int], cells: tuple[int, int], classes: int
) -> Tensor:
    """The most common label of each cell.

    Args:
        targets: class indices `(B, H, W)`, `IGNORE` without label; or of images, `(B,)`.
        padded: sides of the padded image that the cells cover.
        cells: rows and columns of cells.
        classes: their number.

    Returns `(B, h, w)`; `IGNORE` for cells without a labelled pixel.
    """
    if targets.ndim == 1:
        return targets[:, None, None]
    height, width = targets.shape[1:]
    labels = F.pad(targets.long(), (0, padded[1] - width, 0, padded[0] - height), value=IGNORE)
    shares = torch.stack(
        [F.adaptive_avg_pool2d((labels == k).float(), cells) for k in range(classes)], dim=1
    )
    share, found = shares.max(dim=1)
    return torch.where(share > 0, found, IGNORE)


def _draw(
    batches: Iterator[tuple[Tensor, Any, tuple[int, int], tuple[int, int]]],
    probe: Probe,
    rng: np.random.Generator,
) -> _Sample:
    """Draw vectors evenly over the classes; each vector of a class is as likely.

    Those with the smallest random numbers are kept, so one pass suffices.
    """
    classes = probe.num_outputs
    quota = max(1, probe.options.max_samples // classes)
    kept: list[tuple[NDArray[np.float64], NDArray[np.float32]]] = [
        (np.empty(0), np.empty((0, probe.width), np.float32)) for _ in range(classes)
    ]
    counts = np.zeros(classes, dtype=np.int64)
    for vectors, targets, padded, _ in batches:
        cells = (vectors.shape[2], vectors.shape[3])
        labels = cell_labels(targets, padded, cells, classes).flatten().numpy(force=True)
        rows = vectors.movedim(1, -1).flatten(0, -2)
        keys = rng.random(len(labels))
        for k in range(classes):
            own = np.flatnonzero(labels == k)
            counts[k] += len(own)
            before, earlier = kept[k]
            own = own[np.argsort(keys[own])][:quota]
            if len(before) == quota:
                own = own[keys[own] < before[-1]]
            if not len(own):
                continue
            index = torch.from_numpy(own).to(rows.device)
            every = np.concatenate([before, keys[own]])
            order = np.argsort(every)[:quota]
            joined = np.concatenate([earlier, rows[index].numpy(force=True)])
            kept[k] = every[order], joined[order]
    present = [k for k in range(classes) if counts[k]]
    if len(present) < 2:
        raise GeotuneError(
            "the training split has features of fewer than two classes, so there is nothing to "
            "tell apart; check data.labels and data.split",
            code="class-empty",
            key="data.labels",
        )
    return _Sample(
        np.concatenate([kept[k][1] for k in present]),
        np.concatenate([np.full(len(kept[k][0]), k) for k in present]),
        counts,
    )


def _log_prior(sample: _Sample, classes: int) -> Tensor:
    """Log of the frequency of each class over its share of the sample; 0 for absent classes."""
    drawn = np.bincount(sample.labels, minlength=classes)
    ratio = (sample.counts / sample.counts.sum()) / (drawn / drawn.sum()).clip(min=1e-12)
    return torch.from_numpy(np.log(np.where(drawn > 0, ratio, 1.0))).float()


def _candidates(probe: Probe, sample: _Sample) -> dict[float, Probe]:
    """A fitted probe for each value of C or k."""
    if isinstance(probe, LogisticProbe):
        rows = (sample.vectors - probe.mean.numpy(force=True)) / probe.std.numpy(force=True)
        given: float | None = getattr(probe.options, "C")  # noqa: B009
        values: Sequence[float] = INVERSE_PENALTIES if given is None else (given,)
        return {value: _logistic(probe, rows, sample.labels, value) for value in values}
    given = getattr(probe.options, "neighbours")  # noqa: B009
    stored = _with_samples(probe, sample, 1)
    counts = NEIGHBOURS if given is None else (given,)
    return {float(k): stored for k in counts if k <= len(sample.labels)} or {1.0: stored}


def _logistic(
    probe: LogisticProbe, rows: NDArray[np.float32], labels: NDArray[np.int64], value: float
) -> LogisticProbe:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are bounded
        fitted = LogisticRegression(C=value, max_iter=MAX_ITERATIONS).fit(rows, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes, the logit of the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    new = deepcopy(probe)
    new.bias.fill_(-1e4)  # classes without training cells
    present = torch.from_numpy(fitted.classes_)
    new.weight[present] = torch.from_numpy(weight).to(new.weight)
    new.bias[present] = torch.from_numpy(bias).to(new.bias)
    return new


def _with_samples(probe: Probe, sample: _Sample, neighbours: int) -> KnnProbe:
    options = probe.options.model_copy(
        update={"max_samples": len(sample.labels), "neighbours": neighbours}
    )
    assert isinstance(probe, KnnProbe)
    new = deepcopy(probe)
    new.options, new.neighbours = options, neighbours
    rows = torch.from_numpy(sample.vectors).to(new.mean)
    new.samples = (rows - new.mean) / new.std
    new.labels = torch.from_numpy(sample.labels).to(new.labels)
    return new


def _select(
    built: BuiltModel,
    probe: Probe,
    candidates: Mapping[float, Probe],
    log_prior: Tensor,
    batches: Iterator[tuple[Tensor, Any, tuple[int, int], tuple[int, int]]],
    monitor: str,
) -> tuple[dict[str, float], tuple[str, float, float]]:
    """Metrics of the best candidate in validation; its option, value and share of the prior."""
    every = [(value, share) for value in candidates for share in PRIOR_SHARES]
    found = {key: built.task.metrics() for key in every}
    for vectors, targets, padded, size in batches:
        rows = probe.standardized(vectors)
        for value, scores in _scores(candidates, rows):
            for share in PRIOR_SHARES:
                logits = scores + share * log_prior.to(scores)
                logits = logits.reshape(len(vectors), *vectors.shape[2:], -1).movedim(-1, 1)
                outputs = logits.flatten(1) if probe.pooled else logits
                found[value, share].update(resize_outputs(outputs, padded, size), targets)
    lower = lower_is_better(built.task, monitor)
    metrics = {key: each.compute() for key, each in found.items()}

    def quality(key: tuple[float, float]) -> float:
        reached = metrics[key][monitor]
        return -math.inf if math.isnan(reached) else (-reached if lower else reached)

    best = max(every, key=quality)  # of equal ones the first: the strongest penalty, fewest votes
    name = "C" if isinstance(probe, LogisticProbe) else "neighbours"
    return metrics[best], (name, *best)


def _scores(candidates: Mapping[float, Probe], rows: Tensor) -> Iterator[tuple[float, Tensor]]:
    """The scores of each candidate; distances to training vectors are computed once."""
    first = next(iter(candidates.values()))
    if isinstance(first, KnnProbe):
        nearest = first.nearest(rows, int(max(candidates)))
        for value in candidates:
            yield value, first.scores_of(nearest[:, : int(value)])
        return
    for value, probe in candidates.items():
        yield value, probe.scores(rows)


def _final(
    probe: Probe, best: Probe, sample: _Sample, chosen: Mapping[str, float]
) -> tuple[ProbeOptions, Probe]:
    if isinstance(best, KnnProbe):
        final = _with_samples(probe, sample, int(chosen["neighbours"]))
        return final.options, final
    best.options = best.options.model_copy(update=dict(chosen))
    return best.options, best
