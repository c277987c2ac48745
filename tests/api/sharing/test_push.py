"""`geotune push`: what is uploaded, to a hub on this machine, and that it can be loaded again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import geotune
from geotune.adapter_config import ADAPTER_CONFIG, TENSORS
from geotune.api.sharing.push import OWN_FILES, PushResult, push
from geotune.config import load_recipe
from geotune.hub.download import BACKBONE
from geotune.hub.manifest import MANIFEST, read_manifest
from helpers.errors import raises
from helpers.hub_server import Hub
from helpers.stac import check_item

Command = Callable[..., tuple[int, str, str]]
FILES = {"README.md", MANIFEST, ADAPTER_CONFIG, TENSORS, "card.json", "example.png"}


@pytest.fixture(scope="module")
def run(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run with test metrics, for tests that only read it."""
    folder = tmp_path_factory.mktemp("runs") / "ships"
    geotune.fit(tiny_values({"train.epochs": 1}), run=folder)
    geotune.test(folder)
    return folder


@pytest.fixture
def card_of() -> Callable[[bytes | str], tuple[dict[str, Any], str]]:
    """Splits a model card into its metadata and its text."""

    def split(card: bytes | str) -> tuple[dict[str, Any], str]:
        text = card.decode() if isinstance(card, bytes) else card
        _, metadata, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
        return yaml.safe_load(metadata), body

    return split


def test_what_is_pushed_predicts_as_the_run(run: Path, hub: Hub) -> None:
    result = push(run, "org/ships")
    repo = hub.repos["org/ships"]
    files = repo.files()
    assert set(files) == FILES | {".gitattributes"} == set(result.files) | {".gitattributes"}
    assert result.repo == f"hub:org/ships@{repo.branches['main']}"
    assert result.url == f"{hub.endpoint}/org/ships/commit/{repo.branches['main']}"
    assert not repo.private
    pixels = 500 + 50 * np.random.default_rng(0).standard_normal((3, 32, 32))
    expected = geotune.load_adapter(run)(pixels)
    assert np.array_equal(geotune.load_adapter(result.repo)(pixels), expected)


def test_nothing_names_this_machine(run: Path, tmp_path: Path) -> None:
    result = push(run, "org/ships", dry_run=tmp_path / "out")
    assert result.folder == tmp_path / "out"
    for path in result.folder.iterdir():
        content = path.read_bytes()
        assert b"/tmp" not in content and str(run.parent).encode() not in content, path.name
        assert not content.startswith((b"PK", b"\x80")), f"{path.name}: a pickle"


def test_the_manifest_has_every_file_but_the_card(run: Path, tmp_path: Path) -> None:
    push(run, "org/ships", dry_run=tmp_path / "out")
    entries = read_manifest(tmp_path / "out" / MANIFEST, "test")
    assert set(entries) == FILES - {"README.md", MANIFEST}
    for name, entry in entries.items():
        assert (tmp_path / "out" / name).stat().st_size == entry.size


def test_the_model_card_has_metadata_metrics_and_use(
    run: Path, tmp_path: Path, card_of: Callable[..., tuple[dict[str, Any], str]]
) -> None:
    push(run, "org/ships", licence="CC-BY 4.0", dry_run=tmp_path / "out")
    metadata, text = card_of((tmp_path / "out" / "README.md").read_text())
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "geotune"
    assert metadata["pipeline_tag"] == "image-segmentation"
    assert {"geotune", "remote-sensing", "segment", "est"} <= set(metadata["tags"])
    (index,) = metadata["model-index"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert [entry["dataset"]["split"] for entry in index["results"]] == ["test", "val"]
    first = index["results"][0]["metrics"][0]
    assert first == {
        "type": "miou",
        "name": "mean IoU",
        "value": pytest.approx(metrics["test"]["miou"], abs=1e-6),
    }
    assert f"| mean IoU | {metrics['test']['miou']:.3f} | {metrics['val']['miou']:.3f} |" in text
    assert "geotune predict hub:org/ships" in text and "![" in text
    assert 'geotune.load_adapter("hub:org/ships")' in text
    assert "Segmentation of land, water" in text and "2 scenes for train" in text
    recipe = load_recipe(run / "recipe.yaml")[0]
    assert f"lr: {recipe.train.lr:g}" in text
    fingerprint = json.loads((run / ADAPTER_CONFIG).read_text())["base"]["fingerprint"]
    assert fingerprint in text


def test_a_base_model_of_the_hub_is_linked(
    run: Path, tmp_path: Path, card_of: Callable[..., tuple[dict[str, Any], str]]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    values = json.loads((copy / ADAPTER_CONFIG).read_text())
    values["base"] |= {"source": "hub: timm/vit.in1k", "licence": "apache-2.0"}
    (copy / ADAPTER_CONFIG).write_text(json.dumps(values))
    push(copy, "org/ships", dry_run=tmp_path / "out")
    metadata, text = card_of((tmp_path / "out" / "README.md").read_text())
    assert metadata["base_model"] == "timm/vit.in1k" and metadata["license"] == "apache-2.0"
    assert metadata["base_model_relation"] == "adapter"
    assert "https://huggingface.co/timm/vit.in1k" in text


def test_the_stac_item_is_valid_beside_the_adapter(run: Path, tmp_path: Path) -> None:
    push(run, "org/ships", dry_run=tmp_path / "out")
    item = check_item(tmp_path / "out" / "card.json")
    assert all(
        (tmp_path / "out" / asset["href"]).is_file()
        for asset in item["assets"].values()
        if not asset["href"].startswith("https:")
    )
    assert item["bbox"] == pytest.approx([15.0, 45.1477, 15.0163, 45.1535], abs=1e-4)


def test_an_adapter_without_its_run_is_pushed(run: Path, hub: Hub, tmp_path: Path) -> None:
    for name in (ADAPTER_CONFIG, TENSORS):
        shutil.copy(run / name, tmp_path)
    result = push(tmp_path, "hub:org/alone", picture=False)
    assert set(result.files) == FILES - {"example.png"}
    assert b"## Results" not in hub.repos["org/alone"].files()["README.md"]
    geotune.load_adapter("hub:org/alone")


def test_files_are_replaced_on_request_only(run: Path, hub: Hub) -> None:
    push(run, "org/ships", private=True)
    assert hub.repos["org/ships"].private
    before = hub.repos["org/ships"].branches["main"]
    with raises("hub-exists", mentions=["hub:org/ships", "--overwrite"]):
        push(run, "org/ships")
    assert hub.repos["org/ships"].branches["main"] == before
    stale = dict.fromkeys(["adapter_config.json", "notes.md"], b"{}")
    hub.repos["org/ships"].commit({**hub.repos["org/ships"].files(), **stale})
    push(run, "org/ships", overwrite=True, picture=False)
    files = set(hub.repos["org/ships"].files())
    assert files == (FILES - {"example.png"}) | {".gitattributes", "notes.md"}


def test_a_branch_is_created_and_then_kept(run: Path, hub: Hub) -> None:
    push(run, "org/ships")
    push(run, "org/ships", revision="v2", picture=False, message="without the picture")
    repo = hub.repos["org/ships"]
    assert "example.png" in repo.files("main") and "example.png" not in repo.files("v2")
    geotune.load_adapter("hub:org/ships@v2")
    with raises("hub-exists", mentions=["hub:org/ships@v2"]):
        push(run, "org/ships", revision="v2")


# ---------------------------------------------------------------- errors
def test_without_permission(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises("hub-unauthorized", mentions=["hub:other/ships", "hf auth login"]):
        push(run, "other/ships")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with raises("hub-unauthorized", mentions=["hub:org/ships"]):
        push(run, "org/ships")
    assert not hub.repos


def test_offline(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with raises("hub-unavailable", mentions=["hub:org/ships"]):
        push(run, "org/ships")
    assert not hub.requests


@pytest.mark.parametrize("repo", ["ships", "org/a/b", "../x/y", "hub:org/", "org/a b"])
def test_a_name_that_is_none(run: Path, repo: str) -> None:
    with raises("hub-name"):
        push(run, repo)


def test_a_branch_is_no_part_of_the_name(run: Path) -> None:
    for name in ("org/ships@v2", "hub:org/ships@v2"):
        with raises("hub-name", mentions=["org/ships --revision v2"]) as caught:
            push(run, name)
    with raises("hub-name", mentions=["my-org/ships"]) as caught:
        push(run, "ships")
    assert "@REVISION" not in str(caught.value)


def test_an_unfinished_run_and_a_damaged_one(run: Path, tmp_path: Path) -> None:
    with raises("adapter-missing"):
        push(tmp_path, "org/ships")
    shutil.copytree(run, tmp_path / "copy")
    path = tmp_path / "copy" / TENSORS
    path.write_bytes(path.read_bytes()[:-4] + b"0000")
    with raises("adapter-mismatch", file=path):
        push(tmp_path / "copy", "org/ships", dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_keeps_other_files(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with raises("output-exists", key="--dry-run", file=tmp_path):
        push(run, "org/ships", dry_run=tmp_path)


# ---------------------------------------------------------------- weights and code
def changed(run: Path, folder: Path, section: str, **values: Any) -> Path:
    """A copy of a run with other values in a section of its adapter."""
    shutil.copytree(run, folder)
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    config[section] |= values
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    return folder


def test_weights_of_others_are_named_but_not_uploaded(run: Path, tmp_path: Path) -> None:
    copy = changed(run, tmp_path / "run", "backbone", weights="/home/me/galileo/encoder.pt")
    values = json.loads((copy / ADAPTER_CONFIG).read_text())
    values["base"]["source"] = "/home/me/galileo/encoder.pt"
    (copy / ADAPTER_CONFIG).write_text(json.dumps(values))
    result = push(copy, "org/ships", dry_run=tmp_path / "out")
    assert any("encoder.pt" in note and "--weights" in note for note in result.notes)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`encoder.pt` with `--weights`" in text
    assert all(b"/home" not in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_a_python_file_is_not_uploaded(run: Path, tmp_path: Path) -> None:
    copy = changed(run, tmp_path / "run", "backbone", name="python//home/me/mine.py:build")
    push(copy, "org/ships", dry_run=tmp_path / "out")
    values = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_text())
    assert values["backbone"]["name"] == "python/mine.py:build"
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(OWN_FILES)


def test_a_continued_backbone_is_pushed_and_used(
    hub: Hub, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """By a pretraining, and by a run on its backbone, which takes it along."""
    values = tiny_values({"train.epochs": 1, "method": {"kind": "full"}})
    no_teacher = ["task.teacher_weight=0"]
    pretrained = geotune.pretrain(values, no_teacher, run=tmp_path / "pretrained").run
    push(pretrained, "org/vit")
    files = hub.repos["org/vit"].files()
    assert BACKBONE in files and "card.json" not in files
    assert b"backbone.weights=hub:org/vit" in files["README.md"]
    local = geotune.backbone(
        "timm/test_vit", bands=["red", "green", "nir"], weights=pretrained / BACKBONE
    )
    remote = geotune.backbone("timm/test_vit", bands=["red", "green", "nir"], weights="hub:org/vit")
    assert remote.fingerprint == local.fingerprint

    values = tiny_values({"train.epochs": 1, "backbone.weights": str(pretrained / BACKBONE)})
    run = geotune.fit(values, run=tmp_path / "tuned").run
    result = push(run, "org/tuned")
    shutil.rmtree(pretrained)
    assert BACKBONE in result.files
    assert str(tmp_path).encode() not in hub.repos["org/tuned"].files()[ADAPTER_CONFIG]
    pixels = np.full((3, 32, 32), 480, np.float32)
    loaded = geotune.load_adapter("hub:org/tuned")
    assert loaded.backbone.fingerprint == local.fingerprint
    assert loaded(pixels).shape == (2, 32, 32)


# ---------------------------------------------------------------- the command
def test_the_command_prints_what_was_pushed(geotune: Command, run: Path, hub: Hub) -> None:
    code, out, err = geotune("push", run, "org/ships", "--license", "mit")
    commit = hub.repos["org/ships"].branches["main"]
    assert code == 0, err
    assert f"hub:org/ships@{commit}" in out and "adapter.safetensors" in out
    code, out, err = geotune("push", run, "org/ships", "--json")
    assert code == 1 and json.loads(out)["code"] == "hub-exists"


def test_the_command_writes_a_folder(geotune: Command, run: Path, tmp_path: Path) -> None:
    code, out, err = geotune("push", run, "org/ships", "--dry-run", tmp_path / "out", "--json")
    assert code == 0, err
    values = json.loads(out)
    assert values["folder"] == str(tmp_path / "out") and set(values["files"]) == FILES
    assert set(values) == set(PushResult.__dataclass_fields__)
