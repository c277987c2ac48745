"""Numbers of others, read from files as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geotune.bench.external_results import ExternalResult, read_external_results
from geotune.bench.suite import Published, Suite, read_suite
from geotune.errors import GeotuneError

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


def asked(file: Path, **keys: Any) -> Published:
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
    return Published.model_validate(values | keys)


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(GROUPED)
    return path


def test_columns_under_several_lines_of_names(grouped: Path) -> None:
    lora, full = read_external_results(asked(grouped))
    assert (lora.recipe, lora.method, lora.source) == ("sen1", "lora", "a paper")
    assert (lora.value, lora.spread) == (pytest.approx(0.9025), pytest.approx(0.0025))
    assert (full.method, full.value, full.spread) == ("Full FT", pytest.approx(0.91), None)


def test_columns_under_one_line(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("method,ap\nfull,50\nfrozen,\n")
    keys = {"header": 1, "method": "method", "only": {}, "values": {"sen1": "ap"}, "spreads": {}}
    [full] = read_external_results(asked(path, **keys))
    assert (full.method, full.value) == ("full", 0.5)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"values": {"sen1": "test mIoU/mean/flods"}}, "did you mean test mIoU/mean/floods"),
        ({"method": "peft"}, "has no column 'peft'; did you mean peft_type"),
        ({"header": 1}, "has no column"),
        ({"header": 9}, "has 7 lines, expected more than the 9"),
        ({"only": {"dataset/model": "Huge"}}, "no line has"),
        ({"values": {"sen1": "dataset/model"}}, "found 'Large', expected a number"),
        ({"file": Path("nowhere.csv")}, "nowhere.csv: cannot be read as CSV"),
    ],
)
def test_what_is_missing_is_named(grouped: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(GeotuneError, match=said):
        read_external_results(asked(**({"file": grouped} | keys)))


def read_all(suite: Suite, reference: Path) -> list[list[ExternalResult]]:
    return [
        read_external_results(
            each.model_copy(
                update={"file": reference / each.file.relative_to("../shared/reference")}
            )
        )
        for each in suite.published
    ]


def test_the_papers_files_are_read_as_they_are(shared_data: Path) -> None:
    study, methods = (
        read_suite(ROOT / f"recipes/suites/{n}.yaml") for n in ("published", "methods")
    )
    reference = shared_data.parent / "reference"
    paper, scratch = read_all(study, reference)
    [v_petl] = read_all(methods, reference)
    known = {(f.recipe, f.labels["backbone"], f.method) for f in paper}
    for backbone in study.grid["backbone"]:  # every one is called as in the paper's table
        assert {(recipe, backbone, "full") for recipe in study.recipes} <= known
    assert {f.method for f in paper} == {*study.grid["method.kind"]} - {"est"}
    [floods] = [f for f in scratch if f.recipe == "sen1floods11"]
    assert floods.value == pytest.approx(0.90746, abs=1e-5) and not floods.labels
    assert len(v_petl) == 2 * 11
    assert {f.method for f in v_petl} <= {*methods.grid["method.kind"], "frozen"}


def test_a_column_says_of_which_label_a_line_is(grouped: Path) -> None:
    found = read_external_results(asked(grouped, only={}, axes={"backbone": "dataset/model"}))
    labels = [(figure.labels["backbone"], figure.method) for figure in found]
    assert labels == [("Small", "lora"), ("Large", "lora"), ("Large", "Full FT")]
