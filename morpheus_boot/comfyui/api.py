"""What ComfyUI says over HTTP, asked with the standard library: this is on the warm path of the boot."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.work.stopping import Stopped

# For one file list ComfyUI walks a whole folder, on a volume that may be cold.
_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
# Without the container's http_proxy, to which urlopen() would send these requests, and the token with them.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Nobody there, too late, cut off, or no JSON.
_SILENCE: Final = (OSError, HTTPException, ValueError)

_T = TypeVar("_T")


class NoAnswer(Exception):
    """ComfyUI is not up yet, has died, or hangs: what it would have said is not known."""


class ComfyUIApi:
    """A running ComfyUI on this machine."""

    def __init__(self, port: int, token: Secret | None) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._token = token

    def when_it_answers(
        self,
        look: Callable[[], _T],
        *,
        deadline_s: float,
        stopping: threading.Event,
        last_lines: Callable[[], str],
    ) -> _T:
        """What ``look`` returns, which asks ComfyUI and is called again where one of its requests had no answer.

        Raises:
            Stopped: ``stopping`` was set.
            WaitedTooLong: there was none by ``deadline_s``; with ComfyUI's last lines.
        """
        until = time.monotonic() + deadline_s
        while not stopping.is_set():
            try:
                return look()
            except NoAnswer as silence:
                if time.monotonic() >= until:
                    raise WaitedTooLong(
                        "ComfyUI",
                        f"it did not answer within {deadline_s:.0f} s ({silence});"
                        f" its last lines: {last_lines()}",
                        "look at its log, or remove the custom node or argument that it hangs on",
                    ) from None
            stopping.wait(_POLL_S)
        raise Stopped

    def require_answer(self) -> None:
        """Returns where ComfyUI answers /system_stats. Raises NoAnswer."""
        if self._get("/system_stats") is None:
            raise NoAnswer("/system_stats: there is no such route")

    def refuses_strangers(self) -> bool:
        """Whether a request without the token gets 401, and nothing else. Raises NoAnswer."""
        try:
            self._open("/system_stats", None).close()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code == _UNAUTHORIZED
        except _SILENCE as error:
            raise NoAnswer(f"/system_stats: {error}") from error
        return False

    def folder_paths(self, models: str) -> dict[str, tuple[str, ...]]:
        """The directories that each model folder reads, by /internal/folder_paths.

        An older ComfyUI without that route has a directory of the folder's name below ``models``. Raises NoAnswer.
        """
        found = self._get("/internal/folder_paths")
        if isinstance(found, dict):
            return {key: tuple(paths) for key, paths in found.items()}
        return {name: (f"{models}/{name}",) for name in self._get("/models") or ()}

    def files_of(self, folder: str) -> frozenset[str]:
        """What a model folder lists, nothing where there is no such folder. Raises NoAnswer."""
        return frozenset(self._get(f"/models/{quote(folder)}") or ())

    def _get(self, path: str) -> Any:  # noqa: ANN401 - ComfyUI's JSON; each caller knows its shape
        """The answer's JSON; None where ComfyUI has no such thing. Raises NoAnswer."""
        try:
            with self._open(path, self._token) as response:
                return json.load(response)
        except urllib.error.HTTPError as answer:
            with answer:
                if answer.code == _NOT_FOUND:
                    return None
                raise NoAnswer(f"{path}: {answer}") from answer
        except _SILENCE as error:
            raise NoAnswer(f"{path}: {error}") from error

    def _open(self, path: str, token: Secret | None) -> HTTPResponse:
        """Raises HTTPError, and whatever _SILENCE names."""
        request = urllib.request.Request(self._base + path)  # noqa: S310 - our own port
        if token is not None:
            request.add_header("Authorization", f"Bearer {token.reveal()}")
        return cast("HTTPResponse", _DIRECT.open(request, timeout=_TIMEOUT_S))
