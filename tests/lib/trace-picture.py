#!/usr/bin/env python3
"""Makes a picture of an execution trace, as `go tool trace` shows it.

usage: trace-picture.py TRACE.out PICTURE.png NAME [MS]

Wants Debian's packages chromium and fonts-dejavu-core, and tests/run to have built Go's tools. The picture is
of MS milliseconds (3) around the longest slice whose name has NAME in it, of those that take half of that at most; with the arrows
between those who wake each other.

docs/trace.png is of the example server: `trace?seconds=0.5` under its own load, and NAME and MS are "worker-1" and 5.
"""
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.environ.get("PICOPROF_GO_BIN", ROOT + "/target/tools/bin")
WIDTH, HEIGHT = 1400, 760
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --remote-debugging-pipe""".split()

# The viewer is Chromium's own, "Catapult". This is what its buttons, its menu of arrows and its keys do.
READY = "!!(document.querySelector('tr-ui-timeline-view') || {}).model"
SHOW = """(() => {
    const view = document.querySelector('tr-ui-timeline-view');
    const style = document.createElement('style');
    style.textContent = 'tr-ui-b-info-bar-group, tr-ui-b-mouse-mode-selector, tr-ui-side-panel-container { display: none !important }';
    document.head.appendChild(style);
    const name = %(name)s, width = %(width)s;
    const slices = [...view.model.getDescendantEvents()].filter(event =>
        event.title && event.title.includes(name) && event.duration > 0 && event.duration <= width / 2);
    if (!slices.length) {
        return false;
    }
    slices.sort((one, other) => other.duration - one.duration);
    const viewport = view.trackView.viewport;
    viewport.selectedFlowEvents = new Set(view.model.flowEvents.map(event => event.category));
    const transform = viewport.currentDisplayTransform.clone();
    const from = slices[0].start - width * 0.4;
    transform.xSetWorldBounds(from, from + width, window.innerWidth - 265);
    viewport.setDisplayTransformImmediately(transform);
    view.brushingStateController.changeSelectionFromTimeline(new tr.model.EventSet(slices.slice(0, 1)));
    return true;
})()"""


class Browser:
    """Chromium, told what to do over two pipes: JSON, with a NUL behind each message."""

    def __init__(self, folder):
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        args = ["sh", "-c", command, "chromium", *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(args, pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        self.to, self.answers = os.fdopen(to_write, "wb"), os.fdopen(from_read, "rb")
        self.last, self.session = 0, None

    def ask(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = b""
            while (byte := self.answers.read(1)) != b"\0":
                if not byte:
                    sys.exit("chromium has ended")
                answer += byte
            answer = json.loads(answer)
            if answer.get("id") == self.last:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, address):
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=address)

    def evaluate(self, code):
        result = self.ask("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in result:
            sys.exit(f"{code}: {result['exceptionDetails']}")
        return result["result"].get("value")


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    trace, picture, name = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    width = float(sys.argv[4]) if len(sys.argv) > 4 else 3
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "HOME": folder, "BROWSER": "true"}
        viewer = subprocess.Popen([TOOLS + "/trace", "-http=127.0.0.1:0", trace], env=environment,
                                  stderr=subprocess.PIPE, text=True)
        browser = None
        try:
            address = None
            for line in viewer.stderr:
                if address := re.search(r"http://[\d.:]+", line):
                    break
            if not address:
                sys.exit("go tool trace does not serve")
            browser = Browser(folder)
            browser.open(address.group() + "/trace")
            deadline = time.monotonic() + 120
            while not browser.evaluate(READY):
                if time.monotonic() > deadline:
                    sys.exit("the viewer does not show it")
                time.sleep(0.2)
            # It lays itself out, and zooms to all of it, when it has the time.
            time.sleep(2)
            if not browser.evaluate(SHOW % {"name": json.dumps(name), "width": width}):
                sys.exit(f"no such slice: {name}")
            time.sleep(2)
            shot = browser.ask("Page.captureScreenshot", format="png")
            with open(picture, "wb") as file:
                file.write(base64.b64decode(shot["data"]))
        finally:
            viewer.kill()
            if browser:
                browser.process.kill()
                browser.process.wait()


main()
