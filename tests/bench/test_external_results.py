"""Published results from CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geotune.bench.external_results import read_external_results
from geotune.bench.suite import PublishedOptions, read_suite
from helpers.errors import raises

ROOT = Path(__file__).parents[2]
GROUPED = """\
,,test mIoU,test mIoU
,,mean,std
dataset,,floods,floods
model,peft_type,,
Small,LoRA,80.5,0.5
Large,LoRA,90.25,0.25
Large,Full FT,91,
"""


def options(file: Path, **keys: Any) -> PublishedOptions:
    values = {
        "file": file,
        "source": "a paper",
        "header": 4,
        "method": "peft_type",
        "names": {"LoRA": "lora"},
        "only": {"dataset/model": "Large"},
        "values": {"sen1": "test mIoU/mean/floods"},
        "spreads": {"sen1": "test mIoU/std/floods"},
        "scale": 0.01,
    }
    return PublishedOptions.model_validate(values | keys)


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(GROUPED)
    return path


def test_multi_line_header(grouped: Path) -> None:
    lora, full = read_external_results(options(grouped))
    assert (lora.recipe, lora.method, lora.source) == ("sen1", "lora", "a paper")
    assert (lora.value, lora.spread) == (pytest.approx(0.9025), pytest.approx(0.0025))
    assert (full.method, full.value, full.spread) == ("Full FT", pytest.approx(0.91), None)


def test_single_line_header(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("method,ap\nfull,50\nfrozen,\n")
    keys = {"header": 1, "method": "method", "only": {}, "values": {"sen1": "ap"}, "spreads": {}}
    [full] = read_external_results(options(path, **keys))
    assert (full.method, full.value) == ("full", 0.5)


@pytest.mark.parametrize(
    ("keys", "code", "mentions"),
    [
        (
            {"values": {"sen1": "test mIoU/mean/flods"}},
            "column-missing",
            ["test mIoU/mean/floods?"],
        ),
        ({"method": "peft"}, "column-missing", ["'peft'", "peft_type?"]),
        ({"header": 1}, "column-missing", []),
        ({"header": 9}, "file-unreadable", ["7 lines", "9"]),
        ({"only": {"dataset/model": "Huge"}}, "suite-results-missing", ["Huge"]),
        ({"values": {"sen1": "dataset/model"}}, "row-invalid", ["'Large'"]),
        ({"file": Path("nowhere.csv")}, "file-unreadable", ["nowhere.csv"]),
    ],
)
def test_unusable_file_is_refused(
    grouped: Path, keys: dict[str, Any], code: str, mentions: list[str]
) -> None:
    values = {"file": grouped} | keys
    with raises(code, file=values["file"], mentions=mentions):
        read_external_results(options(**values))


def test_results_in_the_repository_match_their_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study, exact = (
        read_suite(Path("recipes") / path)
        for path in ("suites/published.yaml", "peft_geofm/suite.yaml")
    )
    paper = [result for each in study.published for result in read_external_results(each)]
    known = {(r.recipe, r.labels.get("backbone"), r.method) for r in paper}
    for backbone in study.grid["backbone"]:  # labels match the paper's table
        assert {(recipe, backbone, "full") for recipe in study.recipes} <= known
    assert {r.method for r in paper} == {*study.grid["method.kind"], "unet_from_scratch"} - {"est"}
    table = [result for each in exact.published for result in read_external_results(each)]
    assert {result.method for result in table} == set(exact.grid["method"])
    [floods] = [
        r
        for r in table
        if (r.recipe, r.labels["model"]) == ("sen1floods11", "UNet (Rand.)") and r.regions == "seen"
    ]
    assert floods.value == pytest.approx(0.90746, abs=1e-5)
    assert floods.labels == {"model": "UNet (Rand.)", "decoder": "default", "metadata": "none"}


def test_published_table_of_peft_methods_is_read(shared_data: Path) -> None:
    methods = read_suite(ROOT / "recipes/suites/methods.yaml")
    [options] = methods.published
    file = shared_data.parent / "reference" / options.file.relative_to("../shared/reference")
    results = read_external_results(options.model_copy(update={"file": file}))
    assert len(results) == 2 * 11
    assert {r.method for r in results} <= {*methods.grid["method.kind"], "frozen"}


def test_axes_assign_lines_to_labels(grouped: Path) -> None:
    actual = read_external_results(options(grouped, only={}, axes={"backbone": "dataset/model"}))
    labels = [(result.labels["backbone"], result.method) for result in actual]
    assert labels == [("Small", "lora"), ("Large", "lora"), ("Large", "Full FT")]
