"""A headless Chromium for tests, steered by its DevTools protocol.

Source:
    https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading

import aiohttp

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def chromium():
    """Where it is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page in a browser.

    Attributes:
        complaints: What its console said of errors: exceptions, and what the page's own policy
            forbade.
    """

    def __init__(self, loop, socket):
        self._loop = loop
        self._socket = socket
        self._numbers = itertools.count()
        self.complaints = []
        for domain in ("Page", "Runtime", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method, **parameters):
        """The result of one command."""
        return self._loop.run_until_complete(asyncio.wait_for(self._told(method, parameters), 60))

    async def _told(self, method, parameters):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(message["params"]["exceptionDetails"])
            elif message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                # Of the network: a refusal, or a gateway that was stopped. Below a warning: advice.
                if entry["source"] != "network" and entry["level"] in ("warning", "error"):
                    self.complaints.append(entry)

    def open(self, url):
        """Goes to a page and waits until its modules ran."""
        self.tell("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def run(self, code):
        """What JavaScript says, awaited; `code` is the body of an async function."""
        answer = self.tell(
            "Runtime.evaluate",
            expression=f"(async () => {{ {code} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition):
        """Waits until an expression of JavaScript is true."""
        # Looked at by the browser before each frame, for at most 30 seconds.
        is_true = self.run(
            "const end = performance.now() + 30000; let value;"
            f"while (!(value = {condition}) && performance.now() < end)"
            "  await new Promise((go) => setTimeout(go, 10));"
            "return Boolean(value);"
        )
        assert is_true, f"never came true: {condition}"

    def type(self, text):
        """Writes into what has the focus."""
        self.tell("Input.insertText", text=text)

    def press(self, key, text="", shift=False):
        """Presses a key and lets it go."""
        code = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}[key]
        more = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        more |= {"text": text} if text else {}
        self.tell("Input.dispatchKeyEvent", type="keyDown", **more)
        self.tell("Input.dispatchKeyEvent", type="keyUp", **more)

    def point_at(self, selector):
        """Moves the pointer to the middle of the first element."""
        x, y = self.run(
            f"const box = document.querySelector({json.dumps(selector)}).getClientRects()[0];"
            "return [box.x + box.width / 2, box.y + box.height / 2];"
        )
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path):
        """Writes what is seen as PNG."""
        data = self.tell("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def tab(folder, *arguments):
    """A tab of a browser that keeps its files in `folder`."""
    process = subprocess.Popen(
        [
            chromium(),
            "--headless",
            "--no-sandbox",  # root has none, and only our own page is opened
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "--window-size=1280,800",
            *arguments,
            "about:blank",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    loop = asyncio.new_event_loop()
    try:
        address = next(line for line in process.stderr if "DevTools listening on ws://" in line)
        # It goes on to complain, and must not wait for a reader.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        host = address.split("ws://")[1].split("/")[0]
        session, socket = loop.run_until_complete(_connected(host))
        try:
            yield Tab(loop, socket)
        finally:
            loop.run_until_complete(session.close())
    finally:
        loop.close()
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.wait()


async def _connected(host):
    session = aiohttp.ClientSession()
    async with session.get(f"http://{host}/json/list") as response:
        targets = await response.json()
    page = next(target for target in targets if target["type"] == "page")
    return session, await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
