"""The options of the Flower app, without Flower."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_option_is_declared_and_documented() -> None:
    """Flower rejects a key of `--run-config` that the app's configuration does not have."""
    app = tomllib.loads((ROOT / "recipes" / "federated" / "pyproject.toml").read_text())
    declared = app["tool"]["flwr"]["app"]["config"]
    assert declared.keys() == {"rounds", "epochs", "sites", "out", "timeout"}
    page = (ROOT / "docs" / "how-to" / "federated.md").read_text()
    code = (ROOT / "src" / "geotune" / "federated" / "server_app.py").read_text()
    for key in declared:
        assert f"| `{key}` |" in page and f'config, "{key}"' in code.replace("get(", "config, ")
