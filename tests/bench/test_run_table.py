"""Suites whose runs are listed in a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geotune.bench.grid import expand
from geotune.bench.suite import read_suite
from helpers.errors import raises

Write = Callable[..., Path]
TABLE = """\
recipe,method.kind,size,train.lr,backbone.bands
tiny,full,small,0.5,
tiny,est,large,1.0e-04,"[red, green, nir]"
"""


@pytest.fixture
def listed(suite: Write, tmp_path: Path) -> Callable[[str], Path]:
    def write(table: str) -> Path:
        path = tmp_path / "runs.csv"
        path.write_text(table, encoding="utf-8")
        sizes = {"small": {"train.batch_size": 2}, "large": {"train.batch_size": 8}}
        grid = {"method.kind": ["est", "full"], "size": sizes}
        return suite(grid=grid, runs=str(path), seeds=[0, 1], baselines=None)

    return write


def test_only_the_listed_combinations_run_with_their_values(
    listed: Callable[[str], Path],
) -> None:
    specs, _ = expand(read_suite(listed(TABLE)))
    assert [spec.name for spec in specs] == [
        "tiny/est-large-0", "tiny/est-large-1", "tiny/full-small-0", "tiny/full-small-1",
    ]  # fmt: skip
    est, full = specs[0].recipe, specs[-1].recipe
    assert (est.train.lr, est.train.batch_size) == (1e-4, 8)
    assert est.backbone.bands == ("red", "green", "nir")
    assert (full.train.lr, full.train.batch_size) == (0.5, 2)


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        (("size", "sise"), ["no column 'size'", "sise?"]),
        (("small", "smal"), ["line 2", "'smal'", "small?"]),
        (("1.0e-04", "[1"), ["line 3", "'[1'"]),
        (("0.5,", "0.5"), ["line 2", "expected 5 cells"]),
        (("est,large", "full,small"), ["line 3", "second line of tiny, full, small"]),
    ],
)
def test_invalid_table_is_refused(
    listed: Callable[[str], Path], tmp_path: Path, change: tuple[str, str], mentions: list[str]
) -> None:
    suite = read_suite(listed(TABLE.replace(*change)))
    with raises("suite-invalid", key="runs", file=tmp_path / "runs.csv", mentions=mentions):
        expand(suite)


def test_missing_table_and_baselines_are_refused(suite: Write, tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    with raises("suite-invalid", key="runs", file=missing, mentions=["not a readable CSV"]):
        expand(read_suite(suite(runs=str(missing), baselines=None)))
    with raises("recipe-invalid", mentions=["runs lists every run"]):
        read_suite(suite(runs=str(missing)))


def test_unknown_keys_are_refused(listed: Callable[[str], Path]) -> None:
    with raises("recipe-invalid", mentions=["train.lrr", "train.lr?"]):
        expand(read_suite(listed(TABLE.replace("train.lr", "train.lrr"))))
