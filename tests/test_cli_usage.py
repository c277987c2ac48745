"""What a person who types a command incompletely, or reads its output in a pipe, gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from geotune.cli import app
from geotune.errors import GeotuneError


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The exit code, the output, and the messages with single spaces."""
    monkeypatch.setattr(sys, "argv", ["geotune", *arguments])
    code = 0
    try:
        app.main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("fit", "RECIPE is missing. See geotune fit --help"),
        ("predict runs/a", "--out is missing. See geotune predict --help"),
        ("predict runs/a --out", "the value of --out is missing."),
        ("list", "CATEGORY is missing. Choose from: backbones, methods,"),
        ("fti", 'Did you mean "fit"?'),
        ("fit a.yaml --overwrit", "Did you mean --overwrite?"),
    ],
)
def test_an_incomplete_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    expected: str,
) -> None:
    code, out, err = run(monkeypatch, capsys, *arguments.split())
    assert code == 2 and out == "" and err.startswith("error: ") and expected in err


@pytest.mark.parametrize("command", ["predict", "bench", "view"])
def test_no_option_empties_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = run(monkeypatch, capsys, command, "--help")
    assert code == 0 and "--empty" not in out and "default: ()" not in out


def test_a_list_in_a_pipe_has_a_whole_line_per_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from geotune.info import list_components

    code, out, _ = run(monkeypatch, capsys, "list", "backbones", "olmoearth")
    rows = [row for row in list_components("backbones") if "olmoearth" in row["name"]]
    lines = out.splitlines()[1:]
    assert code == 0 and len(lines) == len(rows) > 3
    for line, row in zip(lines, rows, strict=True):
        assert all(value in line for value in row.values()) and line.split()[0] == row["name"]


def test_a_list_on_a_narrow_terminal_keeps_names_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run(monkeypatch, capsys, "list", "backbones", "prithvi")
    assert "terratorch/prithvi_eo_v2_tiny_tl" in out and "…" not in out


def test_a_list_of_no_match_suggests_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "list", "methods", "lroa")
    assert code == 1 and out == "" and "no name of methods contains this" in err and "lora" in err


def test_a_missing_recipe_suggests_a_similar_file(tmp_path: Path) -> None:
    from geotune.config import load_recipe

    (tmp_path / "harbours.yaml").write_text("backbone: {}\n")
    for wrong in ("harbors.yaml", "harbours"):
        with pytest.raises(GeotuneError, match=r"did you mean .*harbours\.yaml\?"):
            load_recipe(tmp_path / wrong)
    with pytest.raises(GeotuneError) as caught:
        load_recipe(tmp_path / "clouds.yaml")
    assert "did you mean" not in str(caught.value)


def test_results_of_an_unfinished_run_say_how_to_get_them(tmp_path: Path) -> None:
    from geotune.adapter_config import load_adapter_config
    from geotune.training.run_dir import RunDir

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "recipe.yaml").write_text("")
    for read in (lambda: load_adapter_config(tmp_path), lambda: RunDir(tmp_path).read_json("run")):
        with pytest.raises(GeotuneError, match=f"geotune finish {tmp_path}"):
            read()


@pytest.mark.parametrize("complete", [True, False])
def test_an_interruption_names_the_run_and_what_is_kept(tmp_path: Path, complete: bool) -> None:
    from geotune.api.continuing import interruption_advice
    from geotune.training.run_dir import RunDir

    folder = RunDir(tmp_path / "my run")
    if complete:
        folder.last_checkpoint.parent.mkdir(parents=True)
        folder.last_checkpoint.touch()
    with pytest.raises(KeyboardInterrupt) as caught, interruption_advice(folder):
        raise KeyboardInterrupt
    (note,) = caught.value.__notes__
    assert (f"geotune finish '{folder.path}'" in note) == complete
    assert ("nothing is kept" in note) != complete
