"""What ComfyUI says over HTTP, asked with the standard library: this is on the warm path of the boot."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from morpheus_boot.errors import WaitedTooLong

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


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

    def folder_paths(self, models: str) -> dict[str, tuple[str, ...]]:
        """The directories that each model folder reads, by /internal/folder_paths.

        An older ComfyUI without that route has a directory of the folder's name below ``models``.
        """
        found = self._get("/internal/folder_paths")
        if isinstance(found, dict):
            return {key: tuple(paths) for key, paths in found.items()}
        return {name: (f"{models}/{name}",) for name in self._get("/models") or ()}

    def files_of(self, folder: str) -> frozenset[str]:
        """What a model folder lists."""
        return frozenset(self._get(f"/models/{quote(folder)}") or ())

    def _get(self, path: str) -> Any:  # noqa: ANN401 - ComfyUI's JSON; each caller knows its shape
        """The answer's JSON; None where there is none."""
        try:
            with urllib.request.urlopen(self._base + path, timeout=_TIMEOUT_S) as response:  # noqa: S310
                return json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            return None
