"""Headless Chromium, driven through its pipe (Chrome DevTools Protocol); needs no driver."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """The browser's program, if one is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A page of the browser.

    Attributes:
        problems: errors and warnings of its console.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], to_browser: Any, from_browser: Any
    ) -> None:
        self.process, self._out, self._in = process, to_browser, from_browser
        self._number, self._session = 0, ""
        self._buffer = b""
        self.problems: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **options: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": options}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def open(self, url: str, width: int, height: int) -> None:
        """Open an address in a window of a size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(f"Boolean({script})")
            if value:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{script} is not true; console: {self.problems}")
            time.sleep(0.1)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send an event of the left button: `Pressed`, `Moved` or `Released`."""
        self.call(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left",
            buttons=1, clickCount=1,
        )  # fmt: skip

    def click(self, x: float, y: float) -> None:
        """Click at a point of the window."""
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y)
        self.mouse("Released", x, y)

    def key(self, name: str) -> None:
        """Press and release a key such as `ArrowLeft`."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screenshot(self, path: Path | None = None) -> bytes:
        """A picture of the window as PNG, also written to a file."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(png)
        return png

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._in.fileno(), 1 << 16)
            if not data:
                raise RuntimeError(f"the browser ended with code {self.process.wait()}")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        values = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled" and values["type"] in (
            "error",
            "warning",
        ):
            self.problems += [
                str(arg.get("value", arg.get("description"))) for arg in values["args"]
            ]
        elif message.get("method") == "Log.entryAdded":
            entry = values["entry"]
            self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(values["exceptionDetails"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])


@contextmanager
def open_page(url: str, *, width: int = 1200, height: int = 800) -> Iterator[Page]:
    """Open a page in Chromium; it draws WebGL on the CPU."""
    program = find_chromium()
    assert program is not None
    to_browser, write_end = os.pipe()
    read_end, from_browser = os.pipe()

    def place_pipes() -> None:  # the browser reads from descriptor 3 and writes to 4
        spare = [os.dup(to_browser), os.dup(from_browser)]
        os.dup2(spare[0], 3)
        os.dup2(spare[1], 4)

    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe",
                f"--user-data-dir={profile}", "--no-first-run", "--disable-dev-shm-usage",
                "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--mute-audio",
                "--disable-background-networking", "--disable-component-update",
            ],
            close_fds=False, preexec_fn=place_pipes,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            with os.fdopen(write_end, "wb") as out, os.fdopen(read_end, "rb") as answers:
                page = Page(process, out, answers)
                page.open(url, width, height)
                yield page
        finally:
            process.kill()
            process.wait()
