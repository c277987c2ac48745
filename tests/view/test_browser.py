"""The page in headless Chromium: tiles appear, the swipe moves, a click answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geotune.utils.colors import palette
from helpers.browser import Page, find_chromium, open_page
from helpers.view_folder import CLASSES, write_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium"),
]
WATER, SHIP = palette(CLASSES)[1:]
WIDTH, HEIGHT = 1000, 700
PANEL = 300
"""Width of the list of layers."""


@pytest.fixture(params=["EPSG:32633", None], ids=["utm", "no crs"])
def page(
    request: pytest.FixtureRequest, serve: Callable[..., Any], tmp_path: Path
) -> Iterator[Page]:
    client = serve(write_folder(tmp_path, crs=request.param))
    with open_page(client.server.address, width=WIDTH, height=HEIGHT) as page:
        page.wait_for("document.querySelectorAll('#layers > li').length === 7")
        idle(page)
        yield page
        assert page.problems == []
        assert page.run("document.getElementById('status').textContent") == ""
        own = client.server.address
        assert [url for url in page.requests if not url.startswith((own, "data:", "blob:"))] == []


def idle(page: Page) -> None:
    page.wait_for("document.body.dataset.map === 'idle'")
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def share(page: Page, color: tuple[int, int, int], left: float = 0, right: float = 1) -> float:
    """The share of a colour in a part of the map's width."""
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))[:, PANEL:]
    part = shown[:, int(left * shown.shape[1]) : int(right * shown.shape[1])].astype(int)
    return float((np.abs(part - color).max(axis=2) <= 2).mean())


def until(check: Callable[[], bool]) -> bool:
    """Whether it becomes true while the page draws; each try takes a screenshot."""
    return any(check() for _ in range(40))


def test_tiles_swipe_and_click(page: Page) -> None:
    # tiles
    assert until(lambda: share(page, SHIP, 0.5) > 0.1 and share(page, WATER) > 0.05)
    assert share(page, SHIP, 0, 0.4) == 0

    # a click on the right third of the scene, which is ship
    x, y = PANEL + 0.5 * (WIDTH - PANEL) + 190, HEIGHT / 2
    page.click(x, y)
    page.wait_for("document.querySelector('.answer table')")
    text = page.run("document.querySelector('.answer').innerText")
    assert "polygons" in text and "score" in text
    assert "confidence" in text and "ship" in text and "100" in text
    assert "values of the image" in text and "column 7" in text
    page.run("document.querySelector('.maplibregl-popup-close-button').click()")

    # the swipe: classes on the right, the image alone on the left
    page.run("document.getElementById('swipe').click()")
    page.run(
        "for (const [id, title] of [['left', 'image'], ['right', 'classes']]) {"
        " const select = document.getElementById(id);"
        " select.value = [...select.options].find(o => o.textContent === title).value;"
        " select.dispatchEvent(new Event('change')); }"
    )
    half = (WIDTH - PANEL) / 2
    middle = PANEL + half
    assert until(lambda: share(page, SHIP, 0.5) > 0.1 and share(page, WATER, 0, 0.48) == 0)

    # dragged to the right end: only the image is left
    page.mouse("Moved", middle, 350)
    page.mouse("Pressed", middle, 350)
    page.mouse("Moved", middle + half / 2, 350)
    page.mouse("Moved", WIDTH - 5, 350)
    page.mouse("Released", WIDTH - 5, 350)
    position = "Number(document.getElementById('divider').getAttribute('aria-valuenow'))"
    assert page.run(position) >= 98
    assert until(lambda: share(page, SHIP) == 0)

    # with the keyboard to the left end: only the classes are left
    page.run("document.getElementById('divider').focus()")
    page.key("ArrowLeft")
    assert page.run(position) in (96, 97, 98)
    page.key("Home")
    assert page.run(position) == 0
    assert until(lambda: share(page, SHIP, 0.5) > 0.1 and share(page, WATER, 0, 0.6) > 0.05)

    # dark and light
    page.run("document.getElementById('swipe').click()")
    before = page.run("getComputedStyle(document.getElementById('panel')).backgroundColor")
    page.run("document.getElementById('theme').click()")
    after = page.run("getComputedStyle(document.getElementById('panel')).backgroundColor")
    assert {before, after} == {"rgb(255, 255, 255)", "rgb(23, 28, 34)"}
