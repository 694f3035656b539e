"""A headless Chromium, driven through its DevTools protocol; the smallest part of it that will do.

Whatever the page asks for is recorded, and the browser cannot reach anything but this host: no name
resolves, and what is not loopback would go through a proxy that is not there.
"""

import asyncio
import base64
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.patience import PATIENCE_S

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WITHIN_S = PATIENCE_S


def find_chromium() -> str:
    """Return the browser to use; empty when there is none."""
    debian = shutil.which("chromium-headless-shell", path="/usr/lib/chromium")
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in (debian, *found) if path), "")


class Tab:
    """One tab: what it shows, asked for and complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self._socket, self.url = socket, url
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked_for: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until it is gone."""
        async for message in self._socket:
            reported = message.json()
            if "id" in reported:
                waiting = self._waiting.pop(reported["id"])
                if not waiting.done():
                    waiting.set_result(reported)
            else:
                self._note(reported["method"], reported["params"])

    def _note(self, method: str, reported: Mapping[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked_for.append(reported["request"]["url"])
        elif method == "Runtime.consoleAPICalled" or method == "Runtime.exceptionThrown":
            self.complaints.append(str(reported))
        elif method == "Log.entryAdded" and reported["entry"]["level"] in {"warning", "error"}:
            self.complaints.append(
                f"{reported['entry']['text']} {reported['entry'].get('url', '')}"
            )

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        waiting = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(WITHIN_S):
            reported = await waiting
        assert "error" not in reported, reported
        return dict(reported["result"])

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        reported = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reported, reported
        return reported["result"].get("value")

    async def text(self, selector: str = "body") -> str:
        """Return what a part of the page says, as rendered; empty when there is no such part."""
        return str(await self.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))

    async def until(self, what: str, selector: str = "body") -> None:
        """Wait until some part of the page says `what`; the browser itself tells."""
        said = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                said = await self.evaluate(
                    f"""new Promise((resolve) => {{
                        const look = () => {{
                            for (const part of document.querySelectorAll({selector!r})) {{
                                if (part.innerText.includes({what!r})) resolve(part.innerText);
                            }}
                        }};
                        new MutationObserver(look).observe(document, {{
                            subtree: true, childList: true, characterData: true, attributes: true,
                        }});
                        look();
                    }})"""
                )
        if not said:
            raise AssertionError(f"not shown: {what}; but:\n{await self.text()}")

    async def open(self, selector: str, wanted: bool = True) -> None:
        """Open, or close, a part that is folded. The page updates itself at that very moment."""
        state = f"document.querySelector({selector!r}).open"
        if await self.evaluate(state) is not wanted:
            summary = f"document.querySelector({f'{selector} > summary'!r})"
            await self.evaluate(f"{summary}.click(); draw()")
        assert await self.evaluate(state) is wanted

    async def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13}[key]
            text = {"text": "\r"} if key == "Enter" and kind == "rawKeyDown" else {}
            await self.call(
                "Input.dispatchKeyEvent",
                type="keyDown" if text else kind,
                key=key,
                windowsVirtualKeyCode=code,
                **text,
            )

    async def look(self, *, width: int, height: int, scheme: str = "light") -> None:
        """Give the page a size and a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """Return what is to be seen, as PNG."""
        reported = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return base64.b64decode(reported["data"])


@asynccontextmanager
async def open_tab(chromium: str, directory: Path, url: str) -> AsyncIterator[Tab]:
    """Open a page in a browser of its own, and end that browser afterwards."""
    profile = directory / "chromium"
    profile.mkdir()
    process = await asyncio.create_subprocess_exec(
        chromium,
        "--headless",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--proxy-server=127.0.0.1:9",
        "--proxy-bypass-list=127.0.0.1",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        port = await _port(process)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            path = f"/devtools/page/{await _page(client)}"
            async with client.ws_connect(path, max_msg_size=0) as socket:
                tab = Tab(socket, url)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Page.navigate", url=url)
                yield tab
                listening.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _page(client: aiohttp.ClientSession) -> str:
    """Return the id of the page, which the browser opens a moment after it listens."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            async with client.get("/json/list") as reply:
                pages = [each["id"] for each in await reply.json() if each["type"] == "page"]
            if pages:
                return str(pages[0])
            await asyncio.sleep(0.1)


async def _port(process: asyncio.subprocess.Process) -> int:
    """Return where the browser listens, as it says on stderr."""
    assert process.stderr is not None
    said: list[str] = []
    async with asyncio.timeout(WITHIN_S):
        async for line in process.stderr:
            said.append(line.decode(errors="replace"))
            _, found, address = said[-1].partition("DevTools listening on ws://127.0.0.1:")
            if found:
                return int(address.partition("/")[0])
    raise AssertionError("the browser did not start:\n" + "".join(said))
