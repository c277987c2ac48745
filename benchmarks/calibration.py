"""How often the verdicts of `geotune bench` are false, by simulation, and what they can detect.

    python benchmarks/calibration.py [PART...]

Comparisons of equally good methods are simulated and judged by the functions that `geotune bench`
uses. Writes `benchmarks/results/calibration.json`; docs/explanation/statistics.md shows it.
Takes about ten minutes on one core; parts that are not named keep their rows.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from geotune.bench.statistics import (
    MIN_EFFECTIVE,
    Difference,
    Sample,
    combine,
    levels,
    verdict,
)
from geotune.metrics.spatial_units import MIN_UNITS, SpatialUnits, blocks, independent_units
from geotune.metrics.state import MetricState
from geotune.metrics.uncertainty import influences

RESULTS = Path(__file__).parent / "results" / "calibration.json"
LEVEL = 0.95
Floats = NDArray[np.float64]
Row = dict[str, Any]

REGIMES = {
    "seeds": (1.0, 0.1, 0.1),
    "units": (0.1, 1.0, 0.1),
    "both": (1.0, 1.0, 0.1),
    "interaction": (0.1, 0.1, 1.0),
}
"""Standard deviations of the mean metric due to seeds, units, and seeds in each unit."""


@dataclass(frozen=True)
class Scenario:
    """A table of methods, the first of them the reference.

    Attributes:
        spread: of the methods' noise: the standard deviation of its logarithm.
        sizes: of the units' weights: the standard deviation of their logarithm.
        skewed: whether the effects of units follow an exponential distribution.
    """

    methods: int
    seeds: int
    units: int
    regime: str
    spread: float = 0.0
    sizes: float = 0.0
    skewed: bool = False


def simulate(scenario: Scenario, tables: int, rng: np.random.Generator) -> Sample:
    """Tables of equally good methods: a sample `(tables, methods, seeds)` of weighted means."""
    m, s, u = scenario.methods, scenario.seeds, scenario.units
    of_seed, of_unit, of_both = REGIMES[scenario.regime]
    noise = np.exp(rng.normal(0, scenario.spread, (tables, m, 1, 1)))
    draw = rng.exponential if scenario.skewed else rng.standard_normal
    unit = draw(size=(tables, m, 1, u)) * of_unit * u**0.5
    if scenario.skewed:
        unit -= of_unit * u**0.5
    values = noise * (
        rng.normal(0, of_seed * s**0.5, (tables, m, s, 1))
        + unit
        + rng.normal(0, of_both * (s * u) ** 0.5, (tables, m, s, u))
    )
    return weighted_means(values, np.exp(rng.normal(0, scenario.sizes, (tables, 1, 1, u))))


def weighted_means(values: Floats, weights: Floats) -> Sample:
    """Of values `(..., seeds, units)` over units, with influences from leaving units out."""
    u = values.shape[-1]
    sums, total = weights * values, weights.sum(axis=-1, keepdims=True)
    left_out = (sums.sum(axis=-1, keepdims=True) - sums) / (total - weights)
    influence = (u - 1) * (left_out.mean(axis=-1, keepdims=True) - left_out)
    return Sample(sums.sum(axis=-1) / total[..., 0], influence)


def differences(sample: Sample) -> Sample:
    """Of all methods to the first."""
    assert sample.influence is not None
    rest = Sample(sample.by_run[:, 1:], sample.influence[:, 1:])
    return rest.minus(Sample(sample.by_run[:, :1], sample.influence[:, :1]))


def intervals(sample: Sample, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Means and half widths `(tables, comparisons)` of the simultaneous intervals."""
    result = differences(sample)
    names = [str(i) for i in range(result.by_run.shape[1])]
    [each] = set(levels(level, names, []).values())
    assert result.effective is not None
    few = result.effective < MIN_EFFECTIVE  # `difference` gives no verdict
    return result.mean, np.where(few, np.inf, result.half_width(each))


def satterthwaite(sample: Sample) -> tuple[Floats, Floats]:
    """The same with the degrees of freedom of Satterthwaite (1946), for comparison."""
    result = differences(sample)
    parts = result.variances()
    variance = sum(each.value for each in parts)
    df = variance**2 / sum(each.value**2 / each.df for each in parts)
    share = (1 - LEVEL) / result.by_run.shape[1]
    return result.mean, t.ppf(1 - share / 2, df) * np.sqrt(variance)


def false_tables(mean: Floats, half: Floats, margin: float = 0.0) -> float:
    """The share of tables with a verdict that claims a difference."""
    words = np.vectorize(verdict)(mean - half, mean + half, margin)
    return float(np.mean(np.any((words == "better") | (words == "worse"), axis=1)))


def detectable(mean: Floats, half: Floats) -> float:
    """The difference that is found in 80 % of comparisons, in its true standard errors."""
    return float(np.quantile((half - mean)[np.isfinite(half)], 0.8) / mean.std())


def calibrate(scenario: Scenario, tables: int, seed: int = 0) -> Row:
    """The row of a scenario."""
    rng = np.random.default_rng(seed)
    chunks = max(1, scenario.methods * scenario.seeds * scenario.units * tables // 20_000_000)
    samples = [simulate(scenario, tables // chunks, rng) for _ in range(chunks)]
    mean, half = (np.concatenate(each) for each in zip(*map(intervals, samples), strict=True))
    other = [np.concatenate(each) for each in zip(*map(satterthwaite, samples), strict=True)]
    return {
        "scenario": scenario.__dict__,
        "tables": len(mean),
        "false": false_tables(mean, half),
        "false_satterthwaite": false_tables(other[0], other[1]),
        "detectable": detectable(mean, half),
        "no_verdict": float(np.mean(np.isinf(half))),
    }


def false_claims_at_the_margin(scenario: Scenario, tables: int, seed: int = 0) -> float:
    """The share of tables that call a method not inferior which is inferior by the margin."""
    mean, half = intervals(simulate(scenario, tables, np.random.default_rng(seed)))
    margin = 3.0 * float(mean.std())
    low, high = mean - margin - half, mean - margin + half
    words = np.vectorize(verdict)(low, high, margin)
    claims = np.isin(words, ["not inferior", "equivalent", "better"])
    return float(np.mean(np.any(claims, axis=1)))


def field(side: int, reach: float, nugget: float, rng: np.random.Generator, draws: int) -> Floats:
    """Gaussian fields `(draws, side * side)` with exponential correlation beside a nugget.

    `reach` is the distance, in windows, at which the correlated share falls to 37 %.
    """
    rows, columns = np.mgrid[:side, :side].reshape(2, -1)
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    covariance = nugget * np.eye(side**2) + (1 - nugget) * np.exp(-distance / reach)
    noise = rng.standard_normal((draws, side**2))
    fields: Floats = noise @ np.linalg.cholesky(covariance).T
    return fields


def in_one_scene(side: int, reach: float, nugget: float, draws: int, seed: int = 0) -> Row:
    """How often the interval of a difference misses zero if one scene is cut into units."""
    rng = np.random.default_rng(seed)
    positions = np.array(list(np.ndindex(side, side)))
    scenes = ["scene"] * side**2
    windows = SpatialUnits("block", np.arange(side**2), side**2)
    missed = {"windows": 0, "blocks": 0}
    blocks_given, verdicts = 0, 0
    for values in field(side, reach, nugget, rng, draws):
        verdicts += independent_units(scenes, [0] * side**2).enough
        errors = values - values.mean()
        units = {"windows": windows, "blocks": blocks(scenes, positions, errors[None])}
        blocks_given += units["blocks"].count >= MIN_UNITS
        for name, unit in units.items():
            if unit.count < MIN_UNITS:
                continue
            sizes = np.bincount(unit.of_window)
            sums = np.bincount(unit.of_window, values)
            left_out = (values.sum() - sums) / (side**2 - sizes)
            influence = (unit.count - 1) * (left_out.mean() - left_out)
            sample = Sample(values.mean(keepdims=True), influence[None])
            missed[name] += abs(sample.mean) > sample.half_width(LEVEL)
    return {
        "windows": side**2,
        "reach": reach,
        "nugget": nugget,
        "scenes": draws,
        "missed_windows": missed["windows"] / draws,
        "missed_blocks": missed["blocks"] / max(1, blocks_given),
        "with_blocks": blocks_given / draws,
        "with_verdict": verdicts / draws,
    }


def of_iou(scenes: int, methods: int, seeds: int, tables: int, seed: int = 0) -> Row:
    """IoU from counts of correlated windows in scenes of unequal size, by leaving scenes out."""
    rng = np.random.default_rng(seed)
    false = 0
    for _ in range(tables):
        names = np.repeat(np.arange(scenes), rng.integers(2, 10, scenes)).astype(str)
        units = independent_units(names.tolist(), names.astype(int).tolist())
        objects = rng.poisson(30 * np.exp(rng.normal(0, 1, scenes)))[units.of_window] + 1
        by_method, influence_by_method = [], []
        for _ in range(methods):
            of_scene = rng.normal(0, 0.5, scenes)[units.of_window]
            by_run, influence = [], []
            for _ in range(seeds):
                skill = 1 / (1 + np.exp(-(0.5 + rng.normal(0, 0.2) + of_scene)))
                hits = rng.binomial(objects, skill)
                counts = np.column_stack([hits, objects - hits, rng.binomial(objects, 1 - skill)])
                states = [MetricState({"counts": each}) for each in counts]
                by_run.append(_iou(MetricState.merge(states))["iou"])
                influence.append(influences(_iou, units.merge(states))["iou"])
            by_method.append(by_run)
            influence_by_method.append(influence)
        sample = Sample(np.array([by_method]), np.array([influence_by_method]))
        false += false_tables(*intervals(sample)) > 0
    return {
        "scenes": scenes,
        "methods": methods,
        "seeds": seeds,
        "tables": tables,
        "false": false / tables,
    }


def _iou(state: MetricState) -> dict[str, float]:
    hits, missed, wrong = state.sums["counts"]
    return {"iou": float(hits / (hits + missed + wrong))}


def held_out(regions: int, share: float, tables: int, seed: int = 0) -> Row:
    """Regions held out in turn; `share` of the variance of a region comes from the other regions,
    which are its training data, and so is common to any two regions for the most part."""
    rng = np.random.default_rng(seed)
    own, trained = rng.normal(size=(2, tables, regions))
    others = (trained.sum(axis=1, keepdims=True) - trained) / (regions - 1) ** 0.5
    sample = Sample((1 - share) ** 0.5 * own + share**0.5 * others, held_out=True)
    false = np.mean(np.abs(sample.mean) > sample.half_width(LEVEL))
    return {"regions": regions, "share": share, "tables": tables, "false": float(false)}


def in_folds(
    folds: int, units: int, regime: str, share: float, tables: int, sizes: float = 0.5
) -> Row:
    """Two methods, five seeds, in each seed one run for each fold, whose test units are pooled.

    `share` of the variance of a unit comes from the training data of its fold, which all seeds and
    all units of the fold have in common.
    """
    rng, seeds = np.random.default_rng(0), 5
    of_seed, of_unit, of_both = REGIMES[regime]
    fold = np.arange(units) % folds
    trained = rng.normal(0, share**0.5, (tables, 2, 1, folds))[..., fold]
    own = rng.normal(0, (1 - share) ** 0.5, (tables, 2, 1, units))
    values = (
        rng.normal(0, of_seed * (seeds * folds) ** 0.5, (tables, 2, seeds, folds))[..., fold]
        + of_unit * units**0.5 * (trained + own)
        + rng.normal(0, of_both * (seeds * units) ** 0.5, (tables, 2, seeds, units))
    )
    sample = weighted_means(values, np.exp(rng.normal(0, sizes, (tables, 1, 1, units))))
    return {
        "folds": folds,
        "units": units,
        "regime": regime,
        "share": share,
        "tables": tables,
        "false": false_tables(*intervals(sample)),
    }


def over_data_sets(
    count: int, between: float, ratio: float, tables: int, seed: int = 0, *, weighted: bool = True
) -> Row:
    """Combined differences: false verdicts of ours, and if `weighted` of Hartung and Knapp.

    `between` is the standard deviation of the true differences over data sets, whose mean is zero,
    and `ratio` that of the logarithm of the standard errors, whose median is 1 and which are
    estimated from five seeds.
    """
    rng = np.random.default_rng(seed)
    false = false_weighted = 0
    for _ in range(tables):
        errors = np.exp(rng.normal(0, ratio, count))
        effects = rng.normal(0, np.hypot(errors, between))
        estimated = errors**2 * rng.chisquare(4, count) / 4
        each = [Difference(0, 0, 0, "no verdict", relative=effect) for effect in effects]
        false += combine(each, LEVEL, 0.0).verdict in ("better", "worse")
        false_weighted += weighted and _hartung_knapp(effects, estimated)
    return {
        "data_sets": count,
        "between": between,
        "ratio": ratio,
        "tables": tables,
        "false": false / tables,
        "false_hartung_knapp": false_weighted / tables if weighted else None,
    }


def _hartung_knapp(effects: Floats, variances: Floats) -> bool:
    """Whether the interval of Hartung and Knapp (2001) excludes zero, for comparison."""
    low, high = 0.0, 10 * float(effects.var(ddof=1) + variances.max())
    for _ in range(40):  # the variance between data sets of Paule and Mandel (1982)
        middle = (low + high) / 2
        heterogeneity = _weighted(effects, variances + middle)[1]
        low, high = (middle, high) if heterogeneity > 1 else (low, middle)
    mean, ratio, weight = _weighted(effects, variances + low)
    width = t.ppf((1 + LEVEL) / 2, len(effects) - 1) * np.sqrt(ratio / weight)
    return bool(abs(mean) > width)


def _weighted(effects: Floats, variances: Floats) -> tuple[float, float, float]:
    weights = 1 / variances
    mean = float((weights * effects).sum() / weights.sum())
    ratio = float((weights * (effects - mean) ** 2).sum() / (len(effects) - 1))
    return mean, ratio, float(weights.sum())


def scenarios() -> Iterator[Scenario]:
    """The scenarios of the main table, then harder ones."""
    for regime, seeds, methods, units in product(REGIMES, (2, 3, 5, 10), (2, 5, 10, 18), (6, 20)):
        yield Scenario(methods, seeds, units, regime)
    for regime, seeds in product(REGIMES, (3, 5)):
        plain = Scenario(10, seeds, 20, regime)
        yield replace(plain, spread=0.7)
        yield replace(plain, sizes=1.0)
        yield replace(plain, skewed=True)
    for methods, seeds, units, sizes in product((2, 10), (3, 10), (6, 10, 20), (0.5, 1.0, 1.5)):
        yield Scenario(methods, seeds, units, "units", sizes=sizes)


PARTS: dict[str, Callable[[], list[Row]]] = {
    "tables": lambda: [calibrate(scenario, tables=4000) for scenario in scenarios()],
    "margin": lambda: [
        {**scenario.__dict__, "false": false_claims_at_the_margin(scenario, 4000)}
        for scenario in (Scenario(m, s, 20, r) for r in REGIMES for s in (3, 5) for m in (2, 10))
    ],
    "one_scene": lambda: [
        in_one_scene(side, reach, nugget, 500)
        for side, reach, nugget in product((4, 14, 24), (0.5, 1, 4), (0.0, 0.5, 0.8))
    ],
    "iou": lambda: [of_iou(n, 5, s, 1000) for n in (6, 20) for s in (3, 5)],
    "held_out": lambda: [
        held_out(regions, share / regions, 20_000)
        for regions, share in product((6, 8, 12), (0, 1, 2))
    ],
    "folds": lambda: [
        in_folds(folds, units, regime, share, 10_000)
        for folds, units, regime, share in product(
            (1, 2, 5), (10, 20, 100), REGIMES, (0.0, 0.03, 0.1)
        )
    ],
    "data_sets": lambda: [
        over_data_sets(k, between, ratio, 4000)
        for k, between, ratio in product((3, 5, 8), (0.0, 0.5, 2.0), (0.0, 0.8))
    ],
}


def main(parts: Sequence[str]) -> None:
    """Simulate the parts, or everything, and write the results."""
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if parts else {}
    results |= {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "level": LEVEL,
    }
    for part in parts or PARTS:
        results[part] = PARTS[part]()
        for row in results[part]:
            print(part, row, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
