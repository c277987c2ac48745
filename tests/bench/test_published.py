"""Numbers of others, read from files as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geotune.bench.published import read_published
from geotune.bench.suite import Published
from geotune.types import GeotuneError

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
    lora, full = read_published(asked(grouped))
    assert (lora.recipe, lora.method, lora.source) == ("sen1", "lora", "a paper")
    assert (lora.value, lora.spread) == (pytest.approx(0.9025), pytest.approx(0.0025))
    assert (full.method, full.value, full.spread) == ("Full FT", pytest.approx(0.91), None)


def test_columns_under_one_line(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("method,ap\nfull,50\nfrozen,\n")
    keys = {"header": 1, "method": "method", "only": {}, "values": {"sen1": "ap"}, "spreads": {}}
    [full] = read_published(asked(path, **keys))
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
        read_published(asked(**({"file": grouped} | keys)))


def test_the_papers_files_are_read_as_they_are(shared_data: Path) -> None:
    from geotune.bench.suite import read_suite

    reference = shared_data.parent / "reference"
    found = [
        read_published(
            each.model_copy(
                update={"file": reference / each.file.relative_to("../shared/reference")}
            )
        )
        for each in read_suite(ROOT / "recipes/suites/published.yaml").published
    ]
    assert {figure.method for figure in found[0]} == {
        "frozen", "lora", "vpt", "vit_adapter", "full",
    }  # fmt: skip
    assert found[1][0].value == pytest.approx(0.90746, abs=1e-5)
    assert len(found[2]) == 11 and found[2][-1].method == "mona"
