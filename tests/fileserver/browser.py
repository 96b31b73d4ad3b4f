"""A real browser: Debian's Chromium without a screen, told what to do by the DevTools protocol over a pipe."""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final, Self

CHROMIUM: Final = shutil.which("chromium")
# Without these it asks hosts of its maker's at each start.
_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of one browser, whose profile lies in ``folder``."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        its_input, ours_out = os.pipe()
        ours_in, its_output = os.pipe()
        # It reads what it is told from descriptor 3, and answers on 4.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "bash"),
                *(CHROMIUM, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"),
            ],
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self._tell("Target.createTarget", url="about:blank")["targetId"]
        attached = self._tell("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self._out.close()
        self._in.close()

    def open(self, url: str) -> None:
        """Begins to load ``url``."""
        self._tell("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; None where it throws, as it may while a page loads."""
        outcome = self._tell("Runtime.evaluate", expression=expression, returnByValue=True)
        return outcome["result"].get("value")

    def _tell(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> bytes:
        message = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser is gone"
            message += byte
        return bytes(message)
