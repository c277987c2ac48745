"""The documentation's own method works as it stands there, with one file and one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geotune import registry
from geotune.backbones.base import Backbone
from geotune.config.method_options import method_fits, method_section

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's file under a name of its own and its line in the catalogue; its text."""
    text = PAGE.read_text(encoding="utf-8")
    code, line = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1:]
    (tmp_path / "own_ssf.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    kind, place = re.fullmatch(r'    "(\w+)": "(.*)",\n', line).groups()  # type: ignore[union-attr]
    monkeypatch.setitem(registry.METHODS, kind, place.replace("geotune.methods.ssf", "own_ssf"))
    monkeypatch.delitem(sys.modules, "own_ssf", raising=False)
    return str(code)


def test_it_is_complete_in_less_than_sixty_lines(
    example: str, make_backbone: Callable[..., Backbone], family: str
) -> None:
    assert len(example.splitlines()) < 60
    section = method_section("ssf")(start=0.5)
    assert method_fits("ssf") == "every backbone"
    method = registry.find(registry.METHODS["ssf"])
    encoder = method(start=section.start, stem_width=0).attach(make_backbone(family))
    scales = [p for name, p in encoder.named_parameters() if name.endswith("part.scale")]
    assert scales
    assert all(torch.equal(scale, torch.full_like(scale, 0.5)) for scale in scales)
    assert all(".part." in name for name in encoder.trainable_names())


def test_the_page_names_every_method() -> None:
    text = PAGE.read_text(encoding="utf-8")
    methods, _, _figures = text.partition("## What each one costs")
    rows = re.findall(r"^\| `(\w+)` \|", methods, re.MULTILINE)
    assert sorted(rows) == sorted(registry.METHODS)
