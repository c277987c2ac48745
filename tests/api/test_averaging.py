"""Averages of adapters that were trained apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import geotune
from geotune.adapter_config import TENSORS, AdapterConfig, TrainingImages, load_adapter_config
from geotune.adapter_io import read_tensors, write_adapter
from geotune.api.average_tensors import average_products
from geotune.api.testing import validate
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def first(tiny_values: Values, tmp_path: Path) -> Path:
    """A run of LoRA beside a ResNet with batch norm in the decoder."""
    recipe = tiny_values({"method": {"kind": "lora", "rank": 2}, "train.epochs": 1})
    return geotune.fit(recipe, run=tmp_path / "first").run


def site(
    source: Path,
    folder: Path,
    change: Callable[[str, Tensor], Tensor],
    **changes: Any,
) -> tuple[Path, dict[str, Tensor]]:
    """Another site's adapter: that of `source` with changed tensors and config."""
    config = load_adapter_config(source)
    state = {n: change(n, t) for n, t in read_tensors(source, config).items()}
    folder.mkdir()
    write_adapter(folder, state, replace(config, **changes))
    return folder, state


def other_values(seed: int) -> Callable[[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def change(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor + 3
        return tensor + torch.rand(tensor.shape, generator=generator)

    return change


def products(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: state[name.replace("lora_A", "lora_B")] @ tensor
        for name, tensor in state.items()
        if "lora_A" in name
    }


def test_tensors_are_averaged_and_low_rank_updates_as_products(first: Path, tmp_path: Path) -> None:
    second, theirs = site(first, tmp_path / "second", other_values(0))
    ours = read_tensors(first, load_adapter_config(first))
    result = geotune.average([first, second], tmp_path / "mean", weights=[30, 10])
    assert result.weights == (0.75, 0.25)
    config = load_adapter_config(result.folder)
    mean = read_tensors(result.folder, config)
    for name in ours:
        if not any(word in name for word in ("lora", "running_var", "num_batches")):
            torch.testing.assert_close(mean[name], 0.75 * ours[name] + 0.25 * theirs[name])
    for name, product in products(mean).items():
        exact = 0.75 * products(ours)[name] + 0.25 * products(theirs)[name]
        u, s, v = torch.linalg.svd(exact)  # the best matrix of rank 2
        torch.testing.assert_close(product, u[:, :2] @ s[:2].diag() @ v[:2], atol=1e-5, rtol=1e-4)
        assert result.lost[name] == pytest.approx(float(s[2:].norm() / s.norm()), abs=1e-4)
    assert "products" in result.notes[0]
    assert geotune.load_adapter(result.folder) is not None


def test_equal_adapters_are_their_own_average(first: Path, tmp_path: Path) -> None:
    second, _ = site(first, tmp_path / "second", lambda name, tensor: tensor)
    result = geotune.average([first, second], tmp_path / "mean")
    ours = read_tensors(first, load_adapter_config(first))
    mean = read_tensors(result.folder, load_adapter_config(result.folder))
    for name in ours:
        if "lora" not in name and "num_batches" not in name:
            torch.testing.assert_close(mean[name], ours[name])
    for name, product in products(mean).items():
        torch.testing.assert_close(product, products(ours)[name], atol=1e-6, rtol=1e-4)
    assert max(result.lost.values()) < 1e-6


def test_fixed_principal_axes_have_to_be_equal(tiny_values: Values, tmp_path: Path) -> None:
    method = {"kind": "est", "min_width": 8, "projection_init": "pca_fixed"}
    run = geotune.fit(
        tiny_values({"method": method, "train.epochs": 1}), run=tmp_path / "first"
    ).run

    def only(part: str) -> Callable[[str, Tensor], Tensor]:
        return lambda name, tensor: tensor + 1 if name.startswith(part) else tensor

    trained, _ = site(run, tmp_path / "trained", only("encoder.reader.blocks"))
    mean = geotune.average([run, trained], tmp_path / "mean").folder
    axes_of = {
        name: tensor
        for name, tensor in read_tensors(mean, load_adapter_config(mean)).items()
        if name.startswith("encoder.reader.down")
    }
    assert axes_of and all(
        torch.equal(tensor, read_tensors(run, load_adapter_config(run))[name])
        for name, tensor in axes_of.items()
    )
    axes, _ = site(run, tmp_path / "axes", only("encoder.reader.down"))
    with raises("adapter-mismatch", file=axes, mentions=["axes", "--from"]):
        geotune.average([run, axes], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_updates_of_adalora_are_averaged_with_their_singular_values(
    tiny_values: Values, tmp_path: Path
) -> None:
    """The update is `B (E A)`, with E apart from A."""
    method = {"kind": "peft", "tuner": "adalora", "rank": 2}
    run = geotune.fit(
        tiny_values({"method": method, "train.epochs": 1}), run=tmp_path / "first"
    ).run
    drawn, _ = site(run, tmp_path / "drawn", other_values(0))
    equal, state = site(drawn, tmp_path / "equal", lambda name, tensor: tensor)
    mean = geotune.average([drawn, equal], tmp_path / "mean").folder
    averaged = read_tensors(mean, load_adapter_config(mean))

    def updates(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensors[name.replace("lora_A", "lora_B")]
            @ (tensor * tensors[name.replace("lora_A", "lora_E")])
            for name, tensor in tensors.items()
            if "lora_A" in name
        }

    assert updates(state)
    for name, update in updates(averaged).items():
        torch.testing.assert_close(update, updates(state)[name], atol=1e-5, rtol=1e-4)


def test_decompositions_of_mpo_have_to_be_equal(tiny_values: Values, tmp_path: Path) -> None:
    run = geotune.fit(
        tiny_values({"method": {"kind": "mpo"}, "train.epochs": 1}), run=tmp_path / "first"
    ).run
    other, _ = site(
        run, tmp_path / "other", lambda name, tensor: -tensor if ".start_" in name else tensor
    )
    with raises("adapter-mismatch", file=other, mentions=["mpo", "--from"]):
        geotune.average([run, other], tmp_path / "mean")


def test_factors_of_convolutions_and_of_more_rank_than_channels() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 3, 5, 5), torch.randn(2, 6, 4, 1, 1)
    down, up, lost = average_products(list(a), list(b), [0.5, 0.5])
    assert down.shape == (4, 3, 5, 5) and up.shape == (6, 4, 1, 1)
    exact = sum(0.5 * y.flatten(1) @ x.flatten(1) for x, y in zip(a, b, strict=True))
    assert isinstance(exact, Tensor)
    difference = exact - up.flatten(1) @ down.flatten(1)
    assert lost == pytest.approx(float(difference.norm() / exact.norm()), rel=1e-4)
    a, b = torch.randn(2, 8, 3), torch.randn(2, 5, 8)  # the products have rank 3
    down, up, lost = average_products(list(a), list(b), [0.3, 0.7])
    torch.testing.assert_close(up @ down, 0.3 * b[0] @ a[0] + 0.7 * b[1] @ a[1])
    assert lost < 1e-6


def test_variances_of_batch_norm_and_images_are_pooled(tiny_values: Values, tmp_path: Path) -> None:
    recipe = tiny_values(
        {"method": {"kind": "frozen"}, "decoder": {"kind": "fcn", "channels": 8}, "train.epochs": 1}
    )
    run = geotune.fit(recipe, run=tmp_path / "first").run
    settings = load_adapter_config(run).prediction
    bands = len(recipe["backbone"]["bands"])

    def with_images(mean: float, std: float, pixel: float) -> Any:
        images = TrainingImages(
            mean=[mean] * bands, std=[std] * bands, dtypes=["uint8"], pixel_m=(pixel, pixel)
        )
        return settings.model_copy(update={"images": images, "score_thresholds": {"a": 0.5}})

    def near(name: str, tensor: Tensor) -> Tensor:
        values = {"running_mean": 1.0, "running_var": 4.0, "num_batches_tracked": 10}
        return next((torch.full_like(tensor, v) for k, v in values.items() if k in name), tensor)

    def far(name: str, tensor: Tensor) -> Tensor:
        values = {"running_mean": 3.0, "running_var": 2.0, "num_batches_tracked": 5}
        return next((torch.full_like(tensor, v) for k, v in values.items() if k in name), tensor)

    one, _ = site(run, tmp_path / "one", near, prediction=with_images(0, 1, 10))
    two, _ = site(run, tmp_path / "two", far, prediction=with_images(2, 1, 20))
    result = geotune.average([one, two], tmp_path / "mean")
    config = load_adapter_config(result.folder)
    state = read_tensors(result.folder, config)
    expected = {
        "running_mean": 2,
        "running_var": 4,
        "num_batches_tracked": 15,
    }  # 3 within, 1 between
    found = {k: t for k, t in state.items() if k.rpartition(".")[2] in expected}
    assert found
    for name, tensor in found.items():
        assert torch.equal(tensor, torch.full_like(tensor, expected[name.rpartition(".")[2]]))
    images = config.prediction.images
    assert images is not None and images.mean == [1] * bands and images.pixel_m == (10, 20)
    assert images.std == pytest.approx([2**0.5] * bands)
    assert not config.prediction.score_thresholds and "thresholds" in result.notes[-1]


def test_average_command(first: Path, tmp_path: Path, geotune: Command) -> None:
    second, _ = site(first, tmp_path / "second", other_values(1))
    mean = tmp_path / "mean"
    code, out, err = geotune("average", first, second, "--out", mean, "--weights", "0.25,0.75")
    assert code == 0, err
    assert "25.0%" in out and str(mean) in out and "products" in err
    code, out, _ = geotune("average", first, second, "--out", tmp_path / "b", "--json")
    assert code == 0 and json.loads(out)["weights"] == [0.5, 0.5]
    code, _, err = geotune("average", first, second, "--out", mean, "--weights", "a,b")
    assert code == 1 and "120,80,35" in err


def test_adapters_that_do_not_belong_together(first: Path, tmp_path: Path) -> None:
    config = load_adapter_config(first)
    same = lambda name, tensor: tensor  # noqa: E731
    out = tmp_path / "mean"

    def changed(name: str, **changes: Any) -> Path:
        return site(first, tmp_path / name, same, **changes)[0]

    base = changed("base", base={**config.base, "fingerprint": "f" * 32})
    with raises("adapter-base", file=base, mentions=["fingerprint", "f" * 32]):
        geotune.average([first, base], out)
    method = {**config.sections["method"], "rank": 4}
    recipe = changed("recipe", sections={**config.sections, "method": method})
    with raises("adapter-mismatch", file=recipe, key="method.rank", mentions=["one recipe"]):
        geotune.average([first, recipe], out)
    scale = tuple(2 * s for s in config.normalization.scale)
    units = changed("units", normalization=replace(config.normalization, scale=scale))
    with raises("adapter-mismatch", file=units, key="data.normalize"):
        geotune.average([first, units], out)
    shape, _ = site(
        first, tmp_path / "shape", lambda n, t: torch.cat([t, t]) if "lora_A" in n else t
    )
    with raises("adapter-mismatch", file=shape, mentions=["lora_A"]):
        geotune.average([first, shape], out)
    moved = {**config.sections["backbone"], "weights": "/elsewhere/weights.pt"}
    fine = changed("fine", sections={**config.sections, "backbone": moved})
    for weights, problem in (([1], "2 adapters"), ([1, 0], "positive"), ([0.5, 0.4], "sum to 0.9")):
        with raises("option-invalid", key="weights", mentions=[problem]):
            geotune.average([first, fine], out, weights=weights)
    with raises("option-invalid", mentions=["two or more"]):
        geotune.average([first], out)
    with raises("output-exists", file=first):
        geotune.average([first, fine], first)
    with raises("adapter-missing"):
        geotune.average([first, tmp_path / "nowhere"], out)
    assert not out.exists()
    geotune.average([first, fine], out)
    assert isinstance(load_adapter_config(out), AdapterConfig)


def test_training_starts_from_an_adapter(first: Path, tmp_path: Path, geotune: Command) -> None:
    config = load_adapter_config(first)
    start, state = site(first, tmp_path / "start", lambda name, tensor: tensor + 1)
    recipe = str(first / "recipe.yaml")
    own = ["train.lr=1e-12", "train.weight_decay=0", f"train.run={tmp_path / 'second'}"]
    code, _, err = geotune("fit", recipe, *own, "--from", start)
    assert code == 0, err
    trained = read_tensors(tmp_path / "second", load_adapter_config(tmp_path / "second"))
    for name, tensor in trained.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, state[name])
    wider = [f"train.run={tmp_path / 'wider'}", "method.rank=4", "--from", first]
    code, _, err = geotune("fit", recipe, *wider)
    assert code == 1 and "adapter-mismatch" in err and "method.rank: 2 -> 4" in err, err
    base = {**config.base, "fingerprint": "f" * 32}
    other, _ = site(first, tmp_path / "other", lambda name, tensor: tensor, base=base)
    code, _, err = geotune("fit", recipe, f"train.run={tmp_path / 'b'}", "--from", other)
    assert code == 1 and "adapter-base" in err
    assert not (tmp_path / "wider").exists() and not (tmp_path / "b").exists()


def test_validation_at_a_site_is_that_of_the_adapters_run(
    tiny_values: Values, tmp_path: Path
) -> None:
    recipe = tiny_values({"train.epochs": 1, "train.precision": "auto"})
    run = geotune.fit(recipe, run=tmp_path / "run")
    metrics, windows = validate(recipe, run.run)
    assert metrics == pytest.approx(run.metrics) and windows == 4


def test_values_that_are_not_finite_name_their_adapter(first: Path, tmp_path: Path) -> None:
    """One site that diverged must not spoil the others in silence."""
    for number, part in enumerate(("lora_A", "decoder")):

        def broken(name: str, tensor: Tensor, part: str = part) -> Tensor:
            return tensor * math.nan if part in name and tensor.is_floating_point() else tensor

        second, _ = site(first, tmp_path / f"broken{number}", broken)
        with raises("adapter-invalid", file=second / TENSORS, mentions=[part, "not finite"]):
            geotune.average([first, second], tmp_path / "mean")
        with raises("adapter-invalid", file=second / TENSORS):
            geotune.load_adapter(second)


def test_other_resolutions_and_types_have_no_average(first: Path, tmp_path: Path) -> None:
    settings = load_adapter_config(first).prediction

    def same(name: str, tensor: Tensor) -> Tensor:
        return tensor

    coarse, _ = site(
        first,
        tmp_path / "coarse",
        same,
        prediction=settings.model_copy(update={"resolution_m": 10.0}),
    )
    with raises("adapter-mismatch", key="data.resolution_m", file=coarse, mentions=["10 m", "own"]):
        geotune.average([first, coarse], tmp_path / "mean")
    half, _ = site(first, tmp_path / "half", lambda _, t: t.half() if t.is_floating_point() else t)
    with raises("adapter-mismatch", file=half, mentions=["float16", "float32"]):
        geotune.average([first, half], tmp_path / "mean")
    larger, _ = site(
        first, tmp_path / "larger", same, prediction=settings.model_copy(update={"window": 64})
    )
    result = geotune.average([first, larger], tmp_path / "mean")
    assert any("data.window" in note and "32" in note for note in result.notes)


def test_fitted_classifiers_have_no_average(tiny_values: Values, tmp_path: Path) -> None:
    values = tiny_values(
        {"method": {"kind": "frozen", "stem_width": 0}, "decoder": {"kind": "knn"}}
    )
    run = geotune.fit(values, run=tmp_path / "knn").run
    with raises("adapter-mismatch", key="decoder.kind", file=run, mentions=["knn"]):
        geotune.average([run, run], tmp_path / "mean")


@pytest.mark.parametrize("groups", [1, 2])
def test_products_of_grouped_convolutions_are_averaged_by_group(groups: int) -> None:
    """Outputs of a group read its share of the rank; equal factors are their own average."""
    generator = torch.Generator().manual_seed(0)
    rank, inputs, outputs = 4, 6, 8

    def factors() -> tuple[Tensor, Tensor]:
        a = torch.randn(rank, inputs, 3, 3, generator=generator)
        return a, torch.randn(outputs, rank // groups, 1, 1, generator=generator)

    def update(a: Tensor, b: Tensor) -> Tensor:
        parts = zip(a.flatten(1).chunk(groups), b.flatten(1).chunk(groups), strict=True)
        return torch.cat([up @ down for down, up in parts])

    one, other = factors(), factors()
    a, b, lost = average_products([one[0]] * 2, [one[1]] * 2, (0.5, 0.5))
    assert (a.shape, b.shape) == (one[0].shape, one[1].shape)
    torch.testing.assert_close(update(a, b), update(*one), atol=1e-4, rtol=1e-4)
    assert lost < 1e-6
    a, b, lost = average_products([one[0], other[0]], [one[1], other[1]], (0.5, 0.5))
    exact = (update(*one) + update(*other)) / 2
    expected, kept = [], rank // groups
    for part in exact.chunk(groups):
        u, s, v = torch.linalg.svd(part, full_matrices=False)
        expected.append(u[:, :kept] * s[:kept] @ v[:kept])
    torch.testing.assert_close(update(a, b), torch.cat(expected), atol=1e-4, rtol=1e-4)
    assert lost == pytest.approx(
        float((exact - torch.cat(expected)).norm() / exact.norm()), abs=1e-4
    )
