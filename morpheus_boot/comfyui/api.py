"""What ComfyUI says over HTTP, asked with the standard library: this is on the warm path of the boot."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from morpheus_boot.errors import WaitedTooLong

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A model that ComfyUI does not list, and why."""

    name: str
    reason: str


class ComfyUIApi:
    """A running ComfyUI on this machine."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def wait_until_it_answers(
        self, *, deadline_s: float, stopping: threading.Event, last_lines: Callable[[], str]
    ) -> None:
        """Returns once /system_stats answers, or ``stopping`` is set.

        Raises WaitedTooLong, with ComfyUI's last lines, after ``deadline_s``.
        """
        until = time.monotonic() + deadline_s
        while not stopping.is_set():
            if self._get("/system_stats") is not None:
                return
            if time.monotonic() >= until:
                raise WaitedTooLong(
                    "ComfyUI",
                    f"it did not answer within {deadline_s:.0f} s; its last lines: {last_lines()}",
                    "look at its log, or remove the custom node or argument that it hangs on",
                )
            stopping.wait(_POLL_S)

    def unlisted(self, names: Iterable[str]) -> tuple[Unlisted, ...]:
        """Which of ``names`` (folder/file below models/) ComfyUI does not list.

        A folder that ComfyUI has no loader for is not known to it: what lies there is for custom nodes.
        """
        folders = frozenset(self._get("/models") or ())
        listed: dict[str, frozenset[str]] = {}
        missing = []
        for name in names:
            folder, _, file = name.partition("/")
            if folder not in folders:
                continue
            if folder not in listed:
                listed[folder] = frozenset(self._get(f"/models/{quote(folder)}") or ())
            if file not in listed[folder]:
                missing.append(Unlisted(name, f"ComfyUI does not list it in {folder}"))
        return tuple(missing)

    def _get(self, path: str) -> Any:  # noqa: ANN401 - ComfyUI's JSON; each caller knows its shape
        """The answer's JSON; None where there is none."""
        try:
            with urllib.request.urlopen(self._base + path, timeout=_TIMEOUT_S) as response:  # noqa: S310
                return json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            return None
