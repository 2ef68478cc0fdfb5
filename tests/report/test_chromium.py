"""The report in a real browser: no console error, no request, every picture decoded, no overflow."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from made_up import made_up_scores, random_tasks

BROWSER = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
PATIENCE = 60  # seconds for any one answer, on a busy machine

# resolves to how many pictures there are, how many did not decode, and how far the page overflows the window
PROBE = """(async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const sources = [...document.querySelectorAll("img")].map(i => i.src)
    .concat([...document.querySelectorAll("image")].map(i => i.getAttribute("href")))
    .concat([...document.querySelectorAll("source")].map(s => s.srcset));
  const decoded = await Promise.all(sources.map(async source => {
    const image = new Image(); image.src = source;
    try { await image.decode(); } catch (error) { return false; }
    return image.naturalWidth > 0 && image.naturalHeight > 0;
  }));
  const shown = [...document.querySelectorAll("img, .sets svg")].map(i => i.getBoundingClientRect());
  const root = document.documentElement;
  return {
    pictures: sources.length, broken: decoded.filter(good => !good).length,
    invisible: [...document.images].filter(i => i.naturalWidth === 0).length
             + shown.filter(box => box.width < 1 || box.height < 1).length,
    overflow: root.scrollWidth - root.clientWidth, width: window.innerWidth,
  };
})()"""


class Page:
    """One page of a headless browser, spoken to in the DevTools protocol over a pair of pipes."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="tlxml-chromium-")
        # the browser reads from its descriptor 3 and writes to 4; ours are moved out of their way
        pairs = [tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe()) for _ in range(2)]
        (read, self.write), (self.read, write) = pairs
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@"', "sh", BROWSER, *FLAGS, f"--user-data-dir={self.profile}"],
            preexec_fn=lambda: (os.dup2(read, 3), os.dup2(write, 4)),
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self.buffer, self.events, self.count, self.session = b"", [], 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda message: message.get("id") == self.count)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def wait(self, wanted):
        until = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self.buffer:
                line, self.buffer = self.buffer.split(b"\0", 1)
                message = json.loads(line)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert select.select([self.read], [], [], max(0, until - time.monotonic()))[0], "no answer"
            part = os.read(self.read, 1 << 20)
            assert part, "the browser is gone"
            self.buffer += part

    def open(self, path: Path, width: int, dark: bool = False):
        """Load a file at a width, in a colour scheme."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        self.wait(lambda message: message.get("method") == "Page.loadEventFired")

    def probe(self):
        answer = self.call("Runtime.evaluate", expression=PROBE, awaitPromise=True, returnByValue=True)
        return answer["result"]["value"]

    def complaints(self):
        """Console messages, log entries and uncaught exceptions."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in kinds]

    def requests(self):
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path):
        """The whole page as a PNG, to be looked at."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)
        shutil.rmtree(self.profile, ignore_errors=True)


@pytest.fixture(scope="module")
def page():
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome on PATH")
    page = Page()
    yield page
    page.close()


@pytest.mark.parametrize("features", [(1, 28, 28), (3, 40, 40), (34,)], ids=["gray", "colour", "vectors"])
def test_in_a_browser(page, report, features):
    long = "an uncommonly_long-name_without_any_spaces_" * 3 + "<b>&\"'"
    train, test = (random_tasks(n, long, n, features=features) for n in (24, 5))
    # plots take seconds to draw, and are the same for all
    path = report(train, test, made_up_scores(train, test), drawn=features == (1, 28, 28))
    for width, dark in ((1280, False), (400, False), (400, True)):
        page.open(path, width, dark)
        found = page.probe()
        assert found["pictures"] > 20
        assert (found["broken"], found["invisible"]) == (0, 0)
        assert found["width"] == width
        assert found["overflow"] <= 0
        assert page.complaints() == []
        assert [url for url in page.requests() if not url.startswith(("data:", path.as_uri()))] == []


def test_the_probe_sees_what_is_wrong(page, tmp_path):
    """A page with every fault: otherwise the checks above would prove nothing."""
    path = tmp_path / "bad.html"
    path.write_text(
        '<img src="data:image/png;base64,AAAA"><div style="width: 5000px">x</div><script>nonsense()</script>'
    )
    page.open(path, 400)
    found = page.probe()
    assert (found["broken"], found["invisible"]) == (1, 1)
    assert found["overflow"] > 0
    assert page.complaints()
