"""A headless Chromium driven through its debugging pipe: no port, no package."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest


def chromium() -> str:
    """The browser's path; skips where there is none (never in CI)."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CI"):
        pytest.fail("Chromium must be present in CI")
    pytest.skip("needs Chromium (apt install chromium)")
    raise AssertionError


class Browser:
    """One page; records console messages, exceptions and requests."""

    def __init__(self, profile: Path, width: int = 1300, height: int = 1000) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [
            chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-dev-shm-usage", f"--window-size={width},{height}",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip

        def pipes() -> None:  # Chromium reads commands on 3 and answers on 4
            os.dup2(to_read, 13)
            os.dup2(to_write, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        self._process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._id, self._session = b"", 0, None
        self.events: list[dict] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self.send("Browser.close", timeout=5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
        for end in (self._read, self._write):
            os.close(end)

    def send(self, method: str, *, timeout: float = 60, **params) -> dict:
        """Call a method of the protocol and return its result."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for found in self._messages(end):
                if found.get("id") == self._id:
                    assert "error" not in found, found
                    return found["result"]
                self.events.append(found)
        raise AssertionError(f"Chromium did not answer {method}")

    def _messages(self, end: float):
        if b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            if ready:
                data = os.read(self._read, 1 << 20)
                assert data, "Chromium went away"
                self._buffer += data
        *whole, self._buffer = self._buffer.split(b"\0")
        return [json.loads(w) for w in whole]

    def open(self, url: str, wait: float = 30) -> None:
        """Go to a page and wait until it has loaded."""
        self.send("Page.navigate", url=url)
        end = time.monotonic() + wait
        while time.monotonic() < end and self.run("document.readyState") != "complete":
            time.sleep(0.05)
        self.run("new Promise(f => setTimeout(f, 200))")

    def run(self, script: str):
        """The value of an expression in the page (promises are awaited)."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif event.get("method") == "Log.entryAdded":
                if params["entry"]["level"] in ("error", "warning"):
                    found.append(params["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled":
                found.append(json.dumps(params.get("args")))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, the ones inside it (data:) left out."""
        urls = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [u for u in urls if not u.startswith(("data:", "blob:", "about:"))]
