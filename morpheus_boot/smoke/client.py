"""The few requests that a user of both ports makes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import requests

from morpheus_boot.errors import MorpheusError, ServiceFailed, WaitedTooLong

_TIMEOUT_S: Final = 30.0
_JOB_LIMIT_S: Final = 120.0
_POLL_S: Final = 0.05

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to the file server and to ComfyUI on loopback. Every method raises MorpheusError."""

    files_port: int
    comfyui_port: int
    stopping: threading.Event

    def upload(self, job: str, name: str, content: bytes) -> str:
        """Uploads a picture into ``job``; what LoadImage takes for it."""
        files = {"file": (name, content, "image/png")}
        answer = self._ask(
            "POST", self.files_port, "/upload", files=files, data={"worker_job_id": job}
        )
        return str(_field(answer, "comfy_path"))

    def listed(self, folder: str) -> list[str]:
        """The models that ComfyUI lists in ``folder``; none where it does not know the folder."""
        answer = self._ask("GET", self.comfyui_port, f"/models/{folder}", allowed=(200, 404))
        return list(answer.json()) if answer.ok else []

    def run(self, graph: Json) -> str:
        """Runs ``graph`` to its end; the file name of the one picture that it saves."""
        answer = self._ask("POST", self.comfyui_port, "/prompt", json={"prompt": graph})
        prompt_id = str(_field(answer, "prompt_id"))
        path = f"/history/{prompt_id}"
        history = self._wait(self.comfyui_port, path, lambda told: prompt_id in told)
        return _saved_name(history[prompt_id])

    def run_by_name(self, workflow: str, job: str, parameters: Json) -> str:
        """Runs a workflow of the volume as ``job`` to its end; the file name of the one picture that it made."""
        body = {"workflow_name": workflow, "worker_job_id": job, **parameters}
        self._ask("POST", self.files_port, "/jobs", json=body, allowed=(202,))
        going_on = {"queued", "running"}
        return _made_name(
            self._wait(self.files_port, f"/jobs/{job}", lambda told: told["status"] not in going_on)
        )

    def _wait(self, port: int, path: str, is_over: Callable[[Json], bool]) -> Json:
        """What ``path`` answers once that says that the job is over."""
        deadline = time.monotonic() + _JOB_LIMIT_S
        while time.monotonic() < deadline:
            told: Json = self._ask("GET", port, path).json()
            if is_over(told):
                return told
            if self.stopping.wait(_POLL_S):
                raise MorpheusError("job", "was not waited for any longer", "run smoke again")
        raise WaitedTooLong("job", f"has not ended within {_JOB_LIMIT_S:.0f} s", "see the log")

    def download(self, job: str, name: str) -> bytes | None:
        """An output of ``job``; None where there is none of that name."""
        path = f"/download/{job}/{name}"
        answer = self._ask("GET", self.files_port, path, allowed=(200, 404))
        return answer.content if answer.ok else None

    def clean_up(self, job: str) -> None:
        """Removes ``job``."""
        self._ask("POST", self.files_port, f"/cleanup/{job}")

    def _ask(
        self,
        method: str,
        port: int,
        path: str,
        *,
        allowed: tuple[int, ...] = (200,),
        **what: Any,  # noqa: ANN401 - whatever requests takes
    ) -> requests.Response:
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy knows nothing of our loopback
                url = f"http://127.0.0.1:{port}{path}"
                answer = session.request(method, url, timeout=_TIMEOUT_S, **what)
        except requests.RequestException as error:
            cause = f"does not answer ({type(error).__name__})"
            raise ServiceFailed(f"{method} {path}", cause, "see the log above") from error
        if answer.status_code not in allowed:
            cause = f"answered {answer.status_code}: {answer.text[:500]}"
            raise MorpheusError(f"{method} {path}", cause, "report this with the log")
        return answer


def _field(answer: requests.Response, name: str) -> object:
    try:
        return answer.json()[name]
    except (ValueError, KeyError, TypeError) as error:
        cause = f"answered without '{name}': {answer.text[:500]}"
        raise MorpheusError(answer.request.path_url, cause, "report this with the log") from error


def _made_name(told: Json) -> str:
    """The one file in what `/jobs/<job>` tells of a job that is over."""
    if told["status"] != "done":
        raise ServiceFailed("job", f"{told['status']}: {told['error']}", "see the log")
    made = told["output"]["files"]
    if len(made) != 1:
        raise MorpheusError("job", f"made {len(made)} files, not one", "report this")
    return str(made[0]).rpartition("/")[2]


def _saved_name(entry: Json) -> str:
    """The one saved picture in an entry of ComfyUI's history."""
    if entry["status"]["status_str"] != "success":
        cause = f"failed in ComfyUI: {entry['status']['messages'][-1]}"
        raise ServiceFailed("job", cause, "see ComfyUI's log")
    images = [i for output in entry["outputs"].values() for i in output.get("images", [])]
    if len(images) != 1:
        raise MorpheusError("job", f"saved {len(images)} pictures, not one", "report this")
    return str(images[0]["filename"])
