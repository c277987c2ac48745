"""The output of the commands, as text and as JSON."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import geopandas
import pytest
import rasterio
import shapely
import yaml

from geotune.api.run import Run
from geotune.cli import console
from geotune.cli.app import app
from geotune.config import TrainOptions

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recipe(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values({"train.epochs": 2})))
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    """A finished run, for tests that only read it."""
    from geotune.api.fitting import fit
    from geotune.config import load_recipe

    folder = recipe.parent / "runs" / "tiny"
    fit(load_recipe(recipe)[0], run=folder)
    return folder


def test_fit_prints_results_and_is_complete_the_second_time(
    geotune: Command, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes and progress are on stderr, results on stdout."""
    monkeypatch.chdir(tmp_path)
    overrides = ["method.kind=frozen", "method.stem_width=0", "train.epochs=1"]
    code, out, err = geotune("fit", recipe, *overrides)
    assert code == 0, err
    run = Path("runs/tiny")
    metrics = json.loads((run / "metrics.json").read_text())["val"]
    assert f"{metrics['miou']:.3f}" in out and f"{metrics['iou/water']:.3f}" in out
    assert f"report: {run}/report.html" in out and f"adapter: {run}/adapter.safetensors" in out
    assert "parameters trained" in out and "process memory" in out
    assert f"geotune test {run} " in out
    assert "method.kind=frozen" in err and "method.min_width" in err
    assert "random weights" in err
    assert "epoch 1/1" in err
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}

    code, out, err = geotune("fit", recipe, *overrides)
    assert code == 0
    assert "training is complete" in out and "--overwrite" in out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_fit_suggests_no_test_without_a_test_split(
    geotune: Command, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    summary = json.loads((copy / "run.json").read_text())
    summary["data"]["parts"]["test"] = []
    (copy / "run.json").write_text(json.dumps(summary))
    code, out, err = geotune("fit", copy)
    assert code == 0, err
    assert f"geotune predict {copy} " in out and "geotune test" not in out


def test_fit_prints_one_json_object(geotune: Command, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"
    overrides = [f"train.run={run}", "train.epochs=1"]
    code, out, _ = geotune("fit", recipe, *overrides, "--json")
    assert code == 0
    values = json.loads(out)
    assert len(out.splitlines()) == 1
    assert values["run"] == str(run) and values["status"] == "trained"
    assert values["metrics"] == json.loads((run / "metrics.json").read_text())["val"]
    assert Path(values["adapter"]).is_file() and Path(values["report"]).is_file()
    assert values["summary"]["epochs"] == 1

    code, out, _ = geotune("fit", recipe, *overrides, "--json")
    assert json.loads(out) == {**values, "status": "complete"}


def test_history_has_a_row_per_epoch(run: Path) -> None:
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert {"train/loss", "val/loss", "val/miou", "val/iou/water", "lr", "seconds"} <= set(rows[0])
    events = [path.name for path in (run / "tensorboard").iterdir()]
    assert events and all(name.startswith("events.") for name in events)


def test_test_prints_and_saves_metrics(geotune: Command, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    code, out, _ = geotune("test", copy)
    assert code == 0
    metrics = json.loads((copy / "metrics.json").read_text())["test"]
    assert f"(lowest class), mean IoU {metrics['miou']:.3f}" in out and "d: mean IoU" in out
    (lowest, iou), _ = json.loads((copy / "metrics.json").read_text())["headline"]["test"].items()
    assert iou == min(metrics["iou/land"], metrics["iou/water"]) == metrics[lowest]
    assert out.startswith(f"test: IoU of {lowest.removeprefix('iou/')} {iou:.3f} (lowest class)")
    assert "IoU (threshold)" in out and "--threshold CLASS=auto" in out
    for split in ("val", "test"):
        worst = geopandas.read_file(copy / f"worst_{split}.gpkg")
        assert list(worst["rank"]) == list(range(1, len(worst) + 1)) and len(worst) >= 1
        assert worst["score"].is_monotonic_increasing
        with rasterio.open(worst["image"][0]) as scene:
            assert worst.crs == scene.crs
            extent = shapely.box(*scene.bounds)
            corner = scene.transform @ (worst["col"][0], worst["row"][0])
        assert worst.geometry[0].within(extent)
        assert worst.geometry[0].exterior.coords[0] == corner

    code, out, _ = geotune("test", copy, "--json")
    values = json.loads(out)
    assert values["metrics"] == metrics and values["regions"]["d"] == metrics
    assert sum(map(sum, values["confusion"])) == 64 * 64
    assert f"{metrics['miou']:.3f}" in (copy / "report.html").read_text(encoding="utf-8")


def test_predict_writes_maps_of_every_scene(
    geotune: Command, run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scenes = [tiny_scenes / "scenes" / f"{name}.tif" for name in "cd"]
    code, out, err = geotune("predict", run, *scenes, "--out", tmp_path / "maps", "--json")
    assert code == 0, err
    values = json.loads(out)["scenes"]
    assert [scene["name"] for scene in values] == ["c", "d"]
    for scene, path in zip(values, scenes, strict=True):
        with rasterio.open(scene["classes_path"]) as map_, rasterio.open(path) as image:
            assert (map_.crs, map_.transform, map_.shape) == (
                image.crs,
                image.transform,
                image.shape,
            )
        assert Path(scene["polygons_path"]).is_file()
        assert scene["probabilities_path"] is None
        assert sum(scene["pixels"].values()) == 64 * 64

    code, out, _ = geotune(
        "predict", run, scenes[0], "--out", tmp_path / "more", "--probabilities", "--no-polygons"
    )
    assert code == 0
    names = {path.name for path in (tmp_path / "more").iterdir()}
    assert {"c_classes.tif", "c_probabilities.tif"} <= names
    assert not [name for name in names if name.endswith(".gpkg")]
    assert "land " in out and "windows in" in out


def test_predict_applies_the_threshold_of_the_validation(
    geotune: Command, run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scene = tiny_scenes / "scenes" / "d.tif"
    (chosen,) = Run(run).metrics["class_thresholds"]["val"]
    command = ("predict", run, scene, "--json", "--out")
    index = Run(run).summary["data"]["classes"].index(chosen["class"])
    pixels = {}
    for threshold in ("auto", f"{chosen['class']}={chosen['threshold']}", "0.999", "0.001"):
        code, out, err = geotune(*command, tmp_path / "maps", "--threshold", threshold)
        assert code == 0, err
        pixels[threshold] = list(json.loads(out)["scenes"][0]["pixels"].values())[index]
    auto, same, none, every = pixels.values()
    assert none <= auto == same <= every == 64 * 64
    other = next(n for n in Run(run).summary["data"]["classes"] if n != chosen["class"])
    both = ("--threshold", f"{chosen['class']}=auto", "--threshold", f"{other}=0.999")
    code, out, err = geotune(*command, tmp_path / "maps", *both)
    assert code == 0, err
    assert auto <= json.loads(out)["scenes"][0]["pixels"][chosen["class"]] < 64 * 64
    for wrong in ("sea=0.5", "2", "best", f"{other}=auto", f"{chosen['class']}=0.2,sea=0.5"):
        code, _, err = geotune(*command, tmp_path / "maps", "--threshold", wrong)
        assert code == 1 and f"measured for {chosen['class']}" in err and "CLASS=VALUE" in err


def test_predict_refuses_options_without_an_effect(
    geotune: Command, run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    command = ("predict", run, tiny_scenes / "scenes" / "d.tif", "--out", tmp_path / "maps")
    for option, mention in (("--score", "only for objects"), ("--window", "found 0")):
        code, _, err = geotune(*command, option, 0)
        assert code == 1 and mention in err
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


def test_predict_needs_a_scene(geotune: Command, run: Path, tmp_path: Path) -> None:
    code, _, err = geotune("predict", run, "--out", tmp_path)
    assert code == 1 and "no scene is given" in err


def test_error_is_printed_as_json(geotune: Command, tmp_path: Path) -> None:
    code, out, err = geotune("test", tmp_path / "none", "--json")
    assert code == 1
    report = json.loads(out)
    assert report["file"] == str(tmp_path / "none" / "run.json") or report["error"] in err
    assert set(report) == {"error", "code", "key", "file"}


@pytest.mark.parametrize("what", ["backbones", "methods", "decoders", "datasets"])
def test_list_shows_components_and_one_of_them(geotune: Command, what: str) -> None:
    code, out, _ = geotune("list", what, "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(out)[what]]
    assert len(names) == len(set(names)) >= 3
    code, out, _ = geotune("list", what, names[-1])
    assert code == 0 and names[-1] in out


def test_names_of_a_list_are_never_cut(geotune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "timm/deit_tiny_distilled_patch16_224.fb_in1k"
    _, out, _ = geotune("list", "backbones", "deit_tiny_distilled")
    assert name in out and "…" not in out
    _, out, _ = geotune("list", "backbones", "terratorch/clay_v1")
    assert all(line.split()[0] == "name" or "/" in line.split()[0] for line in out.splitlines())
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a narrow terminal
    _, out, _ = geotune("list", "backbones", "deit_tiny_distilled")
    assert name in out and "…" not in out


def test_list_names_a_filter_that_finds_nothing(geotune: Command) -> None:
    code, out, err = geotune("list", "methods", "loar")
    assert code == 1 and not out and "loar" in err and "geotune list methods" in err
    assert geotune("list", "methods", "loar", "--json")[1].strip() == '{"methods": []}'


def test_list_shows_every_key_of_a_section(geotune: Command) -> None:
    code, out, _ = geotune("list", "train")
    assert code == 0
    assert set(TrainOptions.model_fields) <= set(out.split()) and "default 0.001" in out
    code, out, _ = geotune("list", "decoder", "unet", "--json")
    (kind,) = json.loads(out)["decoder"]
    assert kind["name"] == "unet" and [o["key"] for o in kind["options"]] == ["channels"]
    assert (
        geotune("list", "data", "quality")[1].splitlines()[1] == "scenes, chips, synthetic, images"
    )
    code, _, err = geotune("list", "method", "loar")
    assert code == 1 and "loar" in err and "lora" in err


def test_unknown_command_and_option_exit_with_2(geotune: Command, recipe: Path) -> None:
    assert geotune("train", recipe)[0] == 2
    assert geotune("fit", recipe, "--overwrit")[0] == 2
    assert geotune("list", "tasks", "--log-level", "loud")[0] == 2


def test_quiet_prints_errors_and_results_only(geotune: Command, recipe: Path) -> None:
    check = ("check", recipe, "--reread")
    noisy, quiet = geotune(*check), geotune(*check, "--quiet")
    assert noisy[0] == quiet[0] == 0 and noisy[1] == quiet[1] != ""
    assert noisy[2] != "" and quiet[2] == ""
    code, _, err = geotune("--quiet", "fit", recipe.with_name("none.yaml"))
    assert code == 1 and "none.yaml" in err


def test_unexpected_error_is_no_traceback(
    geotune: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("geotune.info.list_components", lambda category: 1 / 0)
    code, out, err = geotune("list", "tasks", "--json")
    assert code == 3 and "ZeroDivisionError" in err and "--log-level debug" in err
    assert "Traceback" not in err and json.loads(out)["code"] == "internal"


def test_too_little_memory_is_no_mistake_of_geotune(
    geotune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    # refused at once: more than there are addresses
    monkeypatch.setattr("geotune.info.list_components", lambda category: bytes(2**62))
    code, out, err = geotune("list", "tasks", "--json")
    assert code == 1 and "smaller window" in err and json.loads(out)["code"] == "out-of-memory"


def test_refusal_of_the_system_is_no_mistake_of_geotune(
    geotune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(category: str) -> None:
        raise OSError(number, os.strerror(number), "data/a.tif")

    monkeypatch.setattr("geotune.info.list_components", refuse)
    for number, hint in ((errno.ENOSPC, "free disk space"), (errno.EACCES, "check the rights")):
        code, out, err = geotune("list", "tasks", "--json")
        report = json.loads(out)
        assert code == 1 and report["code"] == "file-access" and report["file"] == "data/a.tif"
        assert f"data/a.tif: {os.strerror(number)}; {hint}" in err
    number = errno.EPIPE + 1000
    assert geotune("list", "tasks")[0] == 3


def test_texts_are_printed_as_they_are(
    geotune: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither `:a:` nor what looks like markup has a meaning."""
    code, _, err = geotune("predict", "hub:a", "x.tif", "--out", tmp_path)
    assert code == 1 and "hub:a: found" in err
    texts = ["a[b]c", "[/b]", r"^(.+)\[x]$", r"\\[x]", r"\[0, 1)", "x[", "[[a]]", ":x:"]
    for text in texts:
        console.out().print(f"[bold]{console.escape(text)}[/bold] [dim]end[/dim]")
        assert capsys.readouterr().out == f"{text} end\n"
        console.message(text)
        assert capsys.readouterr().err == f"{text}\n"


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1", "TTY_COMPATIBLE": "1"}])
def test_piped_output_and_no_color_have_no_colours(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "geotune", "test", "nowhere"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "xterm-256color"} | variables,
    )
    assert done.returncode == 1 and "error:" in done.stderr
    assert "\x1b[3" not in done.stderr and ("\x1b" in done.stderr) == bool(variables)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = app.generate_completion(shell=shell)
    assert "predict" in script and "overwrite" in script


HEAVY = ("torch", "numpy", "rasterio", "lightning", "timm", "pandas", "geopandas", "matplotlib")


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from geotune.cli import main; sys.argv = ['geotune', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_stops_with_one_line(
    geotune: Command, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would exit without a message."""
    import signal

    from geotune.cli import app
    from geotune.training.training_module import TrainingModule

    def press_ctrl_c(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    # a shell that starts the tests in the background ignores the signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(TrainingModule, "validation_step", press_ctrl_c)
    monkeypatch.setattr(app.os, "_exit", sys.exit)  # would end the tests
    code, _, err = geotune("fit", recipe, f"train.run={tmp_path / 'run'}")
    assert code == 130
    assert "Run the same command again" in err and "Traceback" not in err
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # once is enough
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_help_wraps_text_and_keeps_patterns(geotune: Command) -> None:
    _, out, _ = geotune("predict", "--help")
    text = " ".join(out.replace("│", " ").split())
    assert "For several modalities one pattern each: S2L2A=s2/*.tif S1GRD=s1/*.tif." in text
    assert "Parameters" in out and "-----" not in out
    assert "\nPredict whole scenes: maps as Cloud-Optimized GeoTIFF, objects, or a table" in out


def test_help_is_fast() -> None:
    """Below 0.5 s of CPU or wall time, best of five, so that other processes matter less."""
    import resource

    best = 60.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).parent / "geotune", "--help"], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, cpu, time.perf_counter() - started)
    assert best < 0.5


def test_cached_features_are_computed_once_and_used_by_fit(
    geotune: Command, recipe: Path, tmp_path: Path
) -> None:
    override = f"train.cache_folder={tmp_path / 'cache'}"
    code, out, err = geotune("cache", recipe, override, "data.augment=false", "--json")
    assert code == 0, err
    values = json.loads(out)
    assert (values["samples"], values["computed"]) == (12, 12)
    size = sum(p.stat().st_size for p in Path(values["folder"]).iterdir())
    assert Path(values["folder"]).parent == tmp_path / "cache" and values["bytes"] == size
    assert "computing the features of 12 windows" in err

    code, out, err = geotune("cache", recipe, override, "data.augment=false")
    assert code == 0, err
    assert values["folder"] in out and "12 windows, 0 newly computed" in out
    settings = [override, "data.augment=false", "train.cache=disk", f"train.run={tmp_path / 'run'}"]
    code, out, err = geotune("fit", recipe, *settings, "train.epochs=1", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["cache"]["computed"] == 0
    assert "data.brightness 0.2 is ignored" in err


def test_cache_of_a_trained_backbone_is_an_error(
    geotune: Command, recipe: Path, tmp_path: Path
) -> None:
    override = f"train.cache_folder={tmp_path / 'cache'}"
    code, out, _ = geotune("cache", recipe, override, "method.kind=full", "--json")
    assert code == 1 and list(tmp_path.iterdir()) == []
    assert "train.cache" in json.loads(out)["error"] and "method.kind full" in out
