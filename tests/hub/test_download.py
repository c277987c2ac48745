"""Adapters of the hub: verified, cached, and nothing else than their files is read."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geotune
from geotune.adapter_config import ADAPTER_CONFIG, TENSORS
from geotune.api.averaging import average
from geotune.api.prediction import predict
from geotune.config import parse_recipe
from geotune.factory.build_model import build_training
from geotune.factory.save_model import save_model
from geotune.hub.connection import hub_errors, quiet_hub, reachable
from geotune.hub.download import BACKBONE, adapter_source, backbone_file, pinned
from geotune.hub.manifest import MANIFEST, write_manifest
from helpers.adapters import STATISTICS, save_pushed
from helpers.errors import raises
from helpers.hub_server import Hub


@pytest.fixture(scope="module")
def adapter(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An adapter with its manifest, as a push writes it, for tests that only read it."""
    folder = tmp_path_factory.mktemp("adapter")
    return save_pushed(folder, parse_recipe(tiny_values()))


@pytest.fixture
def files(adapter: Path) -> dict[str, bytes]:
    """The files of the adapter, to be changed."""
    return {path.name: path.read_bytes() for path in adapter.iterdir()}


def test_an_adapter_of_the_hub_predicts_as_the_local_one(
    adapter: Path, hub: Hub, tiny_scenes: Path, tmp_path: Path
) -> None:
    first = hub.add("org/ships", adapter)
    scene = tiny_scenes / "scenes" / "a.tif"
    local = predict(adapter, scene, tmp_path / "local", device="cpu", qgis=False)
    remote = predict("hub:org/ships", scene, tmp_path / "hub", device="cpu", qgis=False)
    for one, other in zip(local[0].files, remote[0].files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert f"model: hub:org/ships@{first}" in remote[0].notes
    assert not any("model:" in note for note in local[0].notes)


def test_a_revision_is_pinned(adapter: Path, files: dict[str, bytes], hub: Hub) -> None:
    first = hub.add("org/ships", adapter)
    hub.repos["org/ships"].branches["v1"] = first
    second = hub.add("org/ships", {**files, "note.txt": b"changed"})
    for revision, commit in (("", second), ("@v1", first), (f"@{first}", first)):
        source = adapter_source(f"hub:org/ships{revision}")
        assert str(source) == f"hub:org/ships@{commit}" == pinned(f"hub:org/ships{revision}")
        assert (source.folder / TENSORS).read_bytes() == files[TENSORS]
    assert pinned("runs/ships") == "runs/ships"


def test_only_the_files_of_an_adapter_are_downloaded(files: dict[str, bytes], hub: Hub) -> None:
    """What a malicious repository adds is not read, whatever its name."""
    others = ["model.py", "pytorch_model.bin", "weights.pt", "../../escape.json", "a/adapter.json"]
    hub.add("org/ships", {**files, **dict.fromkeys(others, b"import os")})
    geotune.load_adapter("hub:org/ships")
    assert sorted(hub.downloaded()) == sorted([MANIFEST, ADAPTER_CONFIG, TENSORS])


def test_downloaded_files_are_not_downloaded_again_and_suffice_offline(
    adapter: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("org/ships", adapter)
    assert geotune.load_adapter("hub:org/ships").source == f"hub:org/ships@{commit}"
    before = len(hub.downloaded())
    geotune.load_adapter("hub:org/ships")
    assert len(hub.downloaded()) == before
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    requests = len(hub.requests)
    assert str(adapter_source("hub:org/ships")) == f"hub:org/ships@{commit}"
    assert len(hub.requests) == requests


def test_an_average_has_adapters_of_the_hub(adapter: Path, hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("org/ships", adapter)
    result = average([adapter, "hub:org/ships"], tmp_path / "mean")
    assert result.weights == (0.5, 0.5) and f"adapter: hub:org/ships@{commit}" in result.notes
    model = geotune.load_adapter(tmp_path / "mean").model.state_dict()
    for name, tensor in geotune.load_adapter(adapter).model.state_dict().items():
        assert np.allclose(tensor, model[name], atol=1e-6)


# ---------------------------------------------------------------- backbones
@pytest.fixture
def continued(adapter: Path, tmp_path: Path) -> Path:
    """A folder with a backbone as geotune pretrain writes it."""
    from geotune.api.continued_backbone import write_continued_backbone

    folder = tmp_path / "continued"
    recipe = parse_recipe(
        {
            "backbone": {"name": "timm/test_vit", "pretrained": False},
            "method": {"kind": "full"},
            "decoder": {"kind": "linear"},
            "task": {"kind": "segment", "classes": ["a", "b"]},
            "data": {"kind": "synthetic", "split": {"kind": "random"}},
        }
    )
    built = build_training(recipe, STATISTICS)
    for parameter in built.backbone.parameters():
        parameter.data += 0.01
    write_continued_backbone(folder / BACKBONE, built, "full", STATISTICS)
    write_manifest(folder, [BACKBONE])
    return folder


def test_a_backbone_of_the_hub_is_loaded_with_its_commit(continued: Path, hub: Hub) -> None:
    commit = hub.add("org/vit", continued)
    options = {"bands": STATISTICS.bands, "pretrained": False}
    local = geotune.backbone("timm/test_vit", weights=continued / BACKBONE, **options)
    remote = geotune.backbone("timm/test_vit", weights="hub:org/vit", **options)
    assert remote.fingerprint == local.fingerprint
    assert remote.source.startswith(f"hub:org/vit@{commit}: ")


def test_a_training_pins_the_commits_of_its_backbone_and_start(
    continued: Path, hub: Hub, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    backbone = hub.add("org/vit", continued)
    values = tiny_values({"backbone.weights": "hub:org/vit", "train.epochs": 1})
    save_model(tmp_path, build_training(recipe := parse_recipe(values), STATISTICS), recipe)
    write_manifest(tmp_path, [ADAPTER_CONFIG, TENSORS])
    names = (ADAPTER_CONFIG, TENSORS, MANIFEST)
    start = hub.add("org/ships", {name: (tmp_path / name).read_bytes() for name in names})
    values["train"]["start_from"] = "hub:org/ships"
    run = geotune.fit(values, run=tmp_path / "run")
    assert f"train.start_from: hub:org/ships@{start}" in run.summary["notes"]
    hub.add("org/vit", {"README.md": b"the branch moves"})
    config = json.loads((run.run / ADAPTER_CONFIG).read_text())
    assert config["backbone"]["weights"] == f"hub:org/vit@{backbone}"
    loaded = geotune.load_adapter(run.run)
    assert loaded.backbone.source.startswith(f"hub:org/vit@{backbone}: ")


def test_weights_beside_an_adapter_are_downloaded_with_it(
    continued: Path, hub: Hub, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    recipe = parse_recipe(tiny_values({"backbone.weights": str(continued / BACKBONE)}))
    save_model(continued, build_training(recipe, STATISTICS), recipe)
    values = json.loads((continued / ADAPTER_CONFIG).read_text())
    values["backbone"]["weights"] = BACKBONE
    (continued / ADAPTER_CONFIG).write_text(json.dumps(values))
    write_manifest(continued, [ADAPTER_CONFIG, TENSORS, BACKBONE])
    hub.add("org/ships", continued)
    shutil.rmtree(continued)
    geotune.load_adapter("hub:org/ships")
    assert BACKBONE in hub.downloaded()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../weights.pt", "weights.pt"])
def test_a_downloaded_adapter_names_no_file_of_this_machine(
    files: dict[str, bytes], hub: Hub, tmp_path: Path, path: str
) -> None:
    values = json.loads(files[ADAPTER_CONFIG])
    values["backbone"]["weights"] = path
    for name, data in {**files, ADAPTER_CONFIG: json.dumps(values).encode()}.items():
        (tmp_path / name).write_bytes(data)
    write_manifest(tmp_path, [ADAPTER_CONFIG, TENSORS])
    for name in (ADAPTER_CONFIG, TENSORS, MANIFEST):
        files[name] = (tmp_path / name).read_bytes()
    hub.add("org/ships", files)
    with raises("weights-unavailable", key="backbone.weights", mentions=["--weights"]):
        geotune.load_adapter("hub:org/ships")


# ---------------------------------------------------------------- errors
def test_a_repository_that_does_not_exist(hub: Hub) -> None:
    with raises("hub-not-found", mentions=["hub:org/nothing"]):
        geotune.load_adapter("hub:org/nothing")


def test_a_revision_that_does_not_exist(adapter: Path, hub: Hub) -> None:
    hub.add("org/ships", adapter)
    with raises("hub-not-found", mentions=["hub:org/ships@v9"]):
        geotune.load_adapter("hub:org/ships@v9")


def test_a_private_repository_needs_a_token(
    adapter: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/ships", adapter, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with raises("hub-not-found", mentions=["private", "HF_TOKEN"]):
        geotune.load_adapter("hub:org/ships")


def test_a_gated_repository_names_its_page(adapter: Path, hub: Hub) -> None:
    hub.add("org/ships", adapter, gated=True)
    with raises("hub-unauthorized", mentions=["hub:org/ships", "ask for access"]):
        geotune.load_adapter("hub:org/ships")


def test_a_machine_without_internet(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reachable(hub.endpoint) and not reachable("http://127.0.0.1:9")
    monkeypatch.setattr("geotune.hub.connection.reachable", lambda url: False)
    with raises("hub-unavailable", mentions=["hub:org/ships", "local copy"]):
        geotune.load_adapter("hub:org/ships")
    assert not hub.requests


def test_what_keeps_the_hub_away_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr("geotune.hub.connection.reachable", lambda url: False)
        with raises("hub-unavailable", mentions=[hub.endpoint, "HF_ENDPOINT"]) as caught:
            geotune.load_adapter("hub:org/ships")
    assert "HF_HUB_OFFLINE" not in str(caught.value)  # which geotune sets, not the user
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with raises("hub-unavailable", mentions=["HF_HUB_OFFLINE is set", "unset it"]):
        geotune.load_adapter("hub:org/ships")


def test_a_server_without_xet_is_named() -> None:
    problem = RuntimeError("404 Not Found: http://mirror/api/models/a/b/xet-write-token/main")
    with raises("hub-unavailable", mentions=["HF_HUB_DISABLE_XET=1"]), hub_errors("hub:a/b"):
        raise problem


def test_bars_are_shown_on_a_terminal_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        with quiet_hub():
            assert are_progress_bars_disabled() is (before or not terminal)
    assert are_progress_bars_disabled() is before


def test_a_name_without_its_prefix() -> None:
    with raises("adapter-missing", mentions=["org/ships", "hub:ORG/NAME"]):
        geotune.load_adapter("org/ships")


def test_a_hub_that_fails(adapter: Path, hub: Hub) -> None:
    hub.add("org/ships", adapter)
    hub.failing = 418
    with raises("hub-unavailable", mentions=["status 418"]):
        geotune.load_adapter("hub:org/ships")


def test_a_repository_of_something_else(hub: Hub) -> None:
    hub.add("org/bert", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with raises("hub-invalid", mentions=["hub:org/bert", MANIFEST]):
        geotune.load_adapter("hub:org/bert")


@pytest.mark.parametrize("name", [ADAPTER_CONFIG, TENSORS])
def test_a_file_of_another_content_is_refused(files: dict[str, bytes], hub: Hub, name: str) -> None:
    changed = bytearray(files[name])
    changed[-2] ^= 1
    hub.add("org/ships", {**files, name: bytes(changed)})
    with raises("hub-invalid", mentions=["hub:org/ships", name, "hash"]):
        geotune.load_adapter("hub:org/ships")


def test_a_file_of_another_size_is_not_downloaded(files: dict[str, bytes], hub: Hub) -> None:
    """Also what a symbolic link of the repository holds: the path of another file."""
    hub.add("org/ships", {**files, TENSORS: b"../../../etc/passwd"})
    with raises("hub-invalid", mentions=[TENSORS, "19 bytes", len(files[TENSORS])]):
        geotune.load_adapter("hub:org/ships")
    assert TENSORS not in hub.downloaded()


def test_a_huge_description_is_not_downloaded(files: dict[str, bytes], hub: Hub) -> None:
    hub.add("org/ships", files)
    hub.claimed[MANIFEST] = 10**12
    with raises("hub-invalid", mentions=[MANIFEST, 10**12]):
        geotune.load_adapter("hub:org/ships")
    assert not hub.downloaded()


@pytest.mark.parametrize(
    "manifest",
    [
        b"not json",
        b"[]",
        b'{"format": 2, "files": {}}',
        b'{"format": 1, "files": {"adapter.json": {"size": "1", "sha256": ""}}}',
    ],
)
def test_a_manifest_that_is_none(files: dict[str, bytes], hub: Hub, manifest: bytes) -> None:
    hub.add("org/ships", {**files, MANIFEST: manifest})
    with raises("hub-invalid", mentions=["hub:org/ships@", MANIFEST]):
        geotune.load_adapter("hub:org/ships")


def test_a_repository_without_a_backbone(adapter: Path, hub: Hub) -> None:
    hub.add("org/ships", adapter)
    with raises("hub-invalid", mentions=["hub:org/ships@", BACKBONE]):
        backbone_file("hub:org/ships")


def test_a_python_file_still_has_to_be_confirmed(
    files: dict[str, bytes], hub: Hub, tmp_path: Path
) -> None:
    values = json.loads(files[ADAPTER_CONFIG])
    values["backbone"]["name"] = "python/evil.py:build"
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(values))
    (tmp_path / TENSORS).write_bytes(files[TENSORS])
    write_manifest(tmp_path, [ADAPTER_CONFIG, TENSORS])
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    hub.add("org/ships", tmp_path)
    with raises("adapter-code", key="backbone.name", mentions=["--backbone python/evil.py:build"]):
        geotune.load_adapter("hub:org/ships")
    assert "evil.py" not in hub.downloaded()


def test_another_backbone_is_refused(files: dict[str, bytes], hub: Hub, tmp_path: Path) -> None:
    values = json.loads(files[ADAPTER_CONFIG])
    values["base"]["fingerprint"] = "0" * 32
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(values))
    (tmp_path / TENSORS).write_bytes(files[TENSORS])
    write_manifest(tmp_path, [ADAPTER_CONFIG, TENSORS])
    hub.add("org/ships", tmp_path)
    with raises("adapter-base"):
        geotune.load_adapter("hub:org/ships")


@pytest.mark.parametrize("command", [["test"], ["finish"]])
def test_commands_of_run_folders_say_so(
    geotune: Callable[..., tuple[int, str, str]], command: list[str]
) -> None:
    code, _, err = geotune(*command, "hub:org/ships")
    assert code == 1 and "(hub-name)" in err and "run folder" in err
