"""RunPod's queue in front of our job runner: takes jobs through RunPod's SDK and has the file server run them.

It runs on the image's own Python, as a script file, and imports the standard library and runpod alone. It is told by
its environment: FILESERVER_PORT, MORPHEUS_TOKEN where there is one, and the RUNPOD_* variables, which the SDK reads.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import FrameType
from typing import Any, Final
from urllib.parse import quote

import runpod

# A job id of ours; RunPod's own ids are such.
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OVER: Final = frozenset({"done", "failed", "cancelled"})

# RunPod's documentation, "Payload limits": an answer of /runsync may hold 20 MB.
_ANSWER_LIMIT_BYTES: Final = 20_000_000
# What stands around the pictures in an answer.
_ENVELOPE_BYTES: Final = 100_000
# base64 makes four bytes of three.
_MOST_FILE_BYTES: Final = (_ANSWER_LIMIT_BYTES - _ENVELOPE_BYTES) // 4 * 3
# A job of a hundred thousand files is told in so much.
_MOST_WORDS_BYTES: Final = 64 * 2**20

_FIRST_LOOK_S: Final = 0.05
_LOOK_EVERY_S: Final = 0.5
_PROGRESS_EVERY_S: Final = 1.0
_REQUEST_TIMEOUT_S: Final = 30.0
# A file server that died is started again within seconds; after a minute the boot itself has given up.
_AWAY_S: Final = 90.0
_TRY_AGAIN_S: Final = 0.5
# Of the 4 s that a spot worker has after SIGTERM: for what runs to be taken back from ComfyUI, and for an answer that
# is on its way to arrive.
_WITHDRAW_S: Final = 2.0
_SEND_S: Final = 0.5
_DELIVERIES: Final = 3


class Refused(Exception):
    """The file server has answered a request with an error: its status, and its own words."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Unreachable(Exception):
    """The file server has not answered for too long."""


class Stopped(Exception):
    """The job was told to stop: by RunPod, or because this worker ends."""


class FileServer:
    """The routes below /jobs, over loopback."""

    def __init__(self, port: int, token: str | None) -> None:
        self._port = port
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def submit(self, request: Mapping[str, Any], stop: threading.Event) -> str:
        """Posts a job and returns its id. Raises Refused, Unreachable, Stopped."""
        return str(self._tell("POST", "/jobs", stop, request)["worker_job_id"])

    def look(self, job: str, stop: threading.Event) -> dict[str, Any]:
        """How a job stands. Raises Refused, Unreachable, Stopped."""
        return self._tell("GET", f"/jobs/{job}", stop)

    def cancel(self, job: str) -> None:
        """Has a job interrupted in ComfyUI, or taken from its queue, if the file server can be reached."""
        with contextlib.suppress(Refused, OSError, http.client.HTTPException):
            self._ask_once("POST", f"/jobs/{job}/cancel", None, _MOST_WORDS_BYTES)

    def download(self, job: str, name: str, stop: threading.Event, most_bytes: int) -> bytes | None:
        """A file that the job has made; None where it is larger. Raises Refused, Unreachable, Stopped."""
        return self._ask("GET", f"/download/{job}/{quote(name)}", stop, most_bytes=most_bytes)

    def _tell(
        self,
        method: str,
        path: str,
        stop: threading.Event,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        content = self._ask(method, path, stop, body, most_bytes=_MOST_WORDS_BYTES)
        document = _object(content or b"")
        if document is None:
            raise Refused(HTTPStatus.OK, f"the file server's answer to {path} is no JSON object")
        return document

    def _ask(
        self,
        method: str,
        path: str,
        stop: threading.Event,
        body: Mapping[str, Any] | None = None,
        *,
        most_bytes: int,
    ) -> bytes | None:
        """Asks until there is an answer: the file server may just be started again."""
        until = time.monotonic() + _AWAY_S
        while True:
            try:
                return self._ask_once(method, path, body, most_bytes)
            except Refused as refusal:
                if refusal.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                cause = str(refusal)
            except (OSError, http.client.HTTPException) as error:
                cause = str(error) or type(error).__name__
            if time.monotonic() > until:
                raise Unreachable(f"the file server does not answer ({cause})")
            if stop.wait(_TRY_AGAIN_S):
                raise Stopped

    def _ask_once(
        self, method: str, path: str, body: Mapping[str, Any] | None, most_bytes: int
    ) -> bytes | None:
        """What the file server answers; None where that is more than ``most_bytes``."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_REQUEST_TIMEOUT_S)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, self._headers)
            answer = connection.getresponse()
            # Its status first: what an error says may be no JSON.
            if answer.status >= HTTPStatus.BAD_REQUEST:
                document = _object(answer.read(_MOST_WORDS_BYTES)) or {}
                raise Refused(answer.status, _text(document.get("detail", answer.reason)))
            if (answer.length or 0) > most_bytes:
                return None
            content = answer.read(most_bytes + 1)
            if answer.length and len(content) <= most_bytes:
                raise http.client.IncompleteRead(content, answer.length)
        finally:
            connection.close()
        return content if len(content) <= most_bytes else None


class Front:
    """What the SDK calls: one ``handle`` a job."""

    def __init__(self, files: FileServer, report: Callable[[Mapping[str, Any], Any], None]) -> None:
        """``report(job, progress)`` tells RunPod how far a job is."""
        self._files = files
        self._report = report
        self._stops: set[threading.Event] = set()
        self._answered_at = -_SEND_S
        self._leaving = False

    async def handle(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a job of RunPod's, or ``{"error": ...}``.

        The SDK cancels this where RunPod's stop channel names the job; then it is stopped in ComfyUI, too.
        """
        if self._leaving:
            raise asyncio.CancelledError  # without an answer RunPod gives the job to another worker
        stop = threading.Event()
        self._stops.add(stop)
        work = asyncio.ensure_future(asyncio.to_thread(self._run, job, stop))
        try:
            answer = await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({work}, timeout=_REQUEST_TIMEOUT_S)
            raise
        finally:
            self._stops.discard(stop)
        if answer is None:
            raise asyncio.CancelledError
        self._answered_at = time.monotonic()
        return answer

    def keep_concurrency(self, concurrency: int) -> int:
        """The SDK's default, one job at a time.

        The SDK calls this in its loop once it has set its own signal handlers, which this replaces for SIGTERM.
        """
        signal.signal(signal.SIGTERM, self._leave)
        return concurrency

    def _leave(self, _signum: int, _frame: FrameType | None) -> None:
        """Ends this process without an answer to what runs; the SDK alone would wait for its long poll to end."""
        self._leaving = True
        for stop in tuple(self._stops):
            stop.set()
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        until = time.monotonic() + _WITHDRAW_S
        while self._stops and time.monotonic() < until:
            time.sleep(_FIRST_LOOK_S)
        time.sleep(max(0.0, self._answered_at + _SEND_S - time.monotonic()))
        os._exit(0)

    def _run(self, job: Mapping[str, Any], stop: threading.Event) -> dict[str, Any] | None:
        """The job from its request to its answer; None where it was stopped."""
        try:
            return self._answer(self._outcome(job, stop), stop)
        except Stopped:
            return None
        except (Refused, Unreachable) as error:
            return {"error": str(error)}

    def _outcome(self, job: Mapping[str, Any], stop: threading.Event) -> Mapping[str, Any]:
        """How the job ended, however often RunPod delivers it. Raises Refused, Unreachable, Stopped."""
        request = _request(job)
        surely_the_same = request.get("worker_job_id") == job["id"]
        if surely_the_same and (ended := self._ended_well(job["id"], stop)) is not None:
            return ended
        for delivery in range(_DELIVERIES):
            try:
                name = self._files.submit(request, stop)
            except Refused as refusal:
                if refusal.status != http.HTTPStatus.CONFLICT or delivery + 1 == _DELIVERIES:
                    raise
            else:
                return self._follow(job, name, stop)
            # RunPod has given up a worker, or a handler, that had it: that run is waited for, and counts if it is
            # surely the same job and ends well. A worker that is lost is answered as failed after a minute.
            earlier = self._follow(job, request["worker_job_id"], stop)
            if surely_the_same and earlier["status"] == "done":
                return earlier
        raise AssertionError  # the last delivery returns or raises

    def _ended_well(self, name: str, stop: threading.Event) -> Mapping[str, Any] | None:
        """A job that ended after its handler had died, so that nobody told RunPod."""
        try:
            seen = self._files.look(name, stop)
        except Refused as refusal:
            if refusal.status != http.HTTPStatus.NOT_FOUND:
                raise
            return None
        return seen if seen["status"] == "done" and seen["output"] is not None else None

    def _follow(
        self, job: Mapping[str, Any], name: str, stop: threading.Event
    ) -> Mapping[str, Any]:
        """Waits for the end of the job ``name`` and tells RunPod meanwhile how far it is."""
        # Not at once: the SDK sends each word by a thread of its own, which the answer of a quick job would overtake.
        told, told_at = None, time.monotonic()
        pause_s = _FIRST_LOOK_S
        try:
            while True:
                seen = self._files.look(name, stop)
                if seen["status"] in _OVER:
                    return seen
                now = time.monotonic()
                progress = {"status": seen["status"], "progress": seen.get("progress")}
                if progress != told and now - told_at >= _PROGRESS_EVERY_S:
                    told, told_at = progress, now
                    self._report(job, progress)
                if stop.wait(pause_s):
                    raise Stopped
                pause_s = min(pause_s * 1.5, _LOOK_EVERY_S)
        except Stopped:
            self._files.cancel(name)
            raise

    def _answer(self, outcome: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        """What RunPod is told of a job that is over. Raises Refused, Unreachable, Stopped."""
        if outcome["status"] == "done":
            if outcome.get("output") is None:
                return {"error": "the job was cleaned up before it was answered"}
            return self._with_content(outcome["output"], outcome["worker_job_id"], stop)
        error = outcome.get("error") or f"the job was {outcome['status']}"
        if outcome.get("node_errors"):
            said = json.dumps(outcome["node_errors"], ensure_ascii=False)
            error = f"{error}; node_errors: {said}"
        return {"error": error}

    def _with_content(
        self, output: Mapping[str, Any], job: str, stop: threading.Event
    ) -> dict[str, Any]:
        """worker-comfyui's answer holds the files themselves, where the queue takes so much."""
        left_bytes = _MOST_FILE_BYTES
        held: dict[str, list[dict[str, str]]] = {
            kind: [] for kind in ("images", "texts") if kind in output
        }
        for kind, file in [(listed, file) for listed in held for file in output[listed]]:
            content = self._files.download(job, file["filename"], stop, left_bytes)
            if content is None:
                warning = (
                    f"the results as base64 are more than the {_ANSWER_LIMIT_BYTES / 1e6:.0f} MB that RunPod's "
                    f"queue takes: fetch them from the file server, /download/{job}/<filename>"
                )
                return {**output, "worker_job_id": job, "warning": warning}
            left_bytes -= len(content)
            data = base64.b64encode(content).decode()
            held[kind].append({"filename": file["filename"], "type": "base64", "data": data})
        return {**output, **held}


def _request(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job as the file server takes it, under RunPod's own id where the client named none."""
    request = job["input"]
    if not isinstance(request, dict):
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "input: it is not an object")
    if request.get("worker_job_id") is None and _JOB_ID.fullmatch(job["id"]):
        return {**request, "worker_job_id": job["id"]}
    return request


def _object(content: bytes) -> dict[str, Any] | None:
    """The JSON object that ``content`` is; None where it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _text(detail: object) -> str:
    return detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)


def main() -> None:
    """Takes jobs until SIGTERM."""
    files = FileServer(int(os.environ["FILESERVER_PORT"]), os.environ.get("MORPHEUS_TOKEN"))
    front = Front(files, runpod.serverless.progress_update)
    runpod.serverless.start(
        {"handler": front.handle, "concurrency_modifier": front.keep_concurrency}
    )


if __name__ == "__main__":
    main()
