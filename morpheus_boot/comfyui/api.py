"""What ComfyUI says over HTTP, asked with the standard library: this is on the warm path of the boot."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any, Final, cast
from urllib.parse import quote

from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.redact import Secret

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1
_UNAUTHORIZED: Final = 401


class ComfyUIApi:
    """A running ComfyUI on this machine."""

    def __init__(self, port: int, token: Secret | None) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._token = token

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

    def refuses_strangers(self) -> bool:
        """Whether a request without the token gets 401, and nothing else."""
        try:
            self._open("/system_stats", None).close()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code == _UNAUTHORIZED
        except OSError:
            return False
        return False

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
            with self._open(path, self._token) as response:
                return json.load(response)
        except (OSError, ValueError):
            return None

    def _open(self, path: str, token: Secret | None) -> HTTPResponse:
        """Raises HTTPError and URLError, which are OSErrors."""
        request = urllib.request.Request(self._base + path)  # noqa: S310 - our own port
        if token is not None:
            request.add_header("Authorization", f"Bearer {token.reveal()}")
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 - as above
        return cast("HTTPResponse", response)
