"""A stand-in for a RunPod queue endpoint over real HTTP: the worker's side as the SDK speaks it, and the client's.

The worker's side was read in runpod 1.12.0 (serverless/modules: rp_job, rp_http, rp_ping): job-take and its batch form
and job-stop as long polls, job-done with results and progress in a JSON body that calls itself a form, ping. The
client's side is RunPod's API: /run, /status, /cancel with a Bearer key.
"""

import json
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

ENDPOINT: Final = "endpoint1"
API_KEY: Final = "rpa_the-clients-own-key"
WORKER_KEY: Final = "the-workers-own-key"
# RunPod holds a poll open for longer; a worker that is stopped must not wait for it here, either.
_POLL_S: Final = 20.0
_LOOK_S: Final = 0.05


@dataclass
class QueuedJob:
    """One job, and all that the worker has said of it."""

    id: str
    input: Any
    status: str = "IN_QUEUE"
    worker: str | None = None
    progress: list[Any] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def output(self) -> Any:
        """What the worker answered."""
        return self.results[-1].get("output")

    @property
    def error(self) -> Any:
        return self.results[-1].get("error")

    def as_status(self) -> dict[str, Any]:
        """As RunPod's /status shows it."""
        shown: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.worker is not None:
            shown["workerId"] = self.worker
        if self.status == "IN_PROGRESS" and self.progress:
            shown["output"] = self.progress[-1]
        if self.results:
            shown |= self.results[-1]
        return shown


class JobQueue:
    """One endpoint with its queue; serves until the end of its ``with``."""

    def __init__(self) -> None:
        self.jobs: dict[str, QueuedJob] = {}
        self.asked: list[str] = []
        """The worker's requests, each a method and a path without its query."""
        self.pings: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._to_stop: dict[str, list[str]] = {}
        self._closing = False
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What a client calls: https://api.runpod.ai/v2/<endpoint> in life."""
        return f"http://127.0.0.1:{self._server.server_port}/v2/{ENDPOINT}"

    def environ(self, worker: str | None = None) -> dict[str, str]:
        """What RunPod gives to a worker of this endpoint; without ``worker``, one that it has not named."""
        queue = {
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
            "RUNPOD_AI_API_KEY": WORKER_KEY,
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            # These would kill a worker on a small machine without a network (rp_fitness.py).
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }
        return queue if worker is None else {**queue, "RUNPOD_POD_ID": worker}

    def put(self, request: Any, name: str | None = None) -> QueuedJob:
        """Queues a job."""
        job = QueuedJob(name or f"{uuid.uuid4()}-u1", request)
        with self._changed:
            self.jobs[job.id] = job
            self._waiting.append(job.id)
            self._changed.notify_all()
        return job

    def put_again(self, job: QueuedJob) -> None:
        """As RunPod does where the worker that had a job is lost."""
        with self._changed:
            job.status, job.worker = "IN_QUEUE", None
            self._waiting.append(job.id)
            self._changed.notify_all()

    def stop(self, job: QueuedJob) -> None:
        """A client cancels: the job leaves the queue, or its worker is told on the stop channel."""
        with self._changed:
            job.status = "CANCELLED"
            if job.id in self._waiting:
                self._waiting.remove(job.id)
            elif job.worker is not None:
                self._to_stop.setdefault(job.worker, []).append(job.id)
            self._changed.notify_all()

    def wait(self, job: QueuedJob, timeout_s: float = 30) -> QueuedJob:
        """Returns once the worker has answered the job. Raises AssertionError."""
        with self._changed:
            answered = self._changed.wait_for(lambda: job.results, timeout_s)
        assert answered, f"{job} was not answered within {timeout_s} s"
        return job

    def wait_until_taken(self, job: QueuedJob, timeout_s: float = 30) -> None:
        """Returns once a worker has the job. Raises AssertionError."""
        with self._changed:
            taken = self._changed.wait_for(lambda: job.worker is not None, timeout_s)
        assert taken, f"nobody took {job} within {timeout_s} s"

    def take(self, worker: str, most: int, gone: Callable[[], bool]) -> list[QueuedJob]:
        """Up to ``most`` jobs; none after a while, or where the worker is ``gone``."""
        with self._changed:
            self._wait_for(lambda: bool(self._waiting), gone)
            if gone():
                return []
            taken: list[QueuedJob] = []
            while self._waiting and len(taken) < most:
                job = self.jobs[self._waiting.popleft()]
                job.status, job.worker = "IN_PROGRESS", worker
                taken.append(job)
            self._changed.notify_all()
            return taken

    def take_stops(self, worker: str, gone: Callable[[], bool]) -> list[str]:
        """The jobs that ``worker`` is to stop, after a while none."""
        with self._changed:
            self._wait_for(lambda: worker in self._to_stop, gone)
            return self._to_stop.pop(worker, [])

    def _wait_for(self, condition: Callable[[], bool], gone: Callable[[], bool]) -> None:
        until = time.monotonic() + _POLL_S
        while not (condition() or gone() or self._closing) and time.monotonic() < until:
            self._changed.wait(_LOOK_S)

    def finish(self, worker: str, name: str, said: dict[str, Any]) -> None:
        """Takes what a worker says of a job: progress, or its answer."""
        with self._changed:
            job = self.jobs[name]
            if said.get("status") == "IN_PROGRESS":
                job.progress.append(said["output"])
            else:
                job.results.append(said)
                if job.status != "CANCELLED":
                    job.status = "FAILED" if "error" in said else "COMPLETED"
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of workers that were killed."""


def _handler_for(queue: JobQueue) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def _serve(self, body: bytes) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            match url.path.removeprefix(f"/v2/{ENDPOINT}/").split("/"):
                case ["run" | "status" | "cancel" as route, *rest]:
                    self._serve_client(route, rest, body)
                case [route, worker, *rest]:
                    queue.asked.append(f"{self.command} /{route}")
                    self._serve_worker(route, worker, rest, query, body)
                case _:
                    self._answer(404)

        def _serve_client(self, route: str, rest: list[str], body: bytes) -> None:
            if self.headers["Authorization"] != f"Bearer {API_KEY}":
                self._answer(401)
            elif route == "run":
                job = queue.put(json.loads(body)["input"])
                self._answer(200, {"id": job.id, "status": job.status})
            elif rest[0] not in queue.jobs:
                self._answer(404)
            else:
                job = queue.jobs[rest[0]]
                if route == "cancel":
                    queue.stop(job)
                self._answer(200, job.as_status())

        def _serve_worker(
            self, route: str, worker: str, rest: list[str], query: Mapping[str, str], body: bytes
        ) -> None:
            if self.headers["Authorization"] != WORKER_KEY:
                self._answer(401)
                return
            match self.command, route:
                case "GET", "job-take" if query["job_in_progress"] in "01":
                    jobs = queue.take(worker, 1, self._is_gone)
                    self._answer(200, _as_taken(jobs[0])) if jobs else self._answer(204)
                case "GET", "job-take-batch" if query["job_in_progress"] in "01":
                    jobs = queue.take(worker, int(query["batch_size"]), self._is_gone)
                    self._answer(200, [*map(_as_taken, jobs)]) if jobs else self._answer(204)
                case "GET", "job-stop":
                    stops = queue.take_stops(worker, self._is_gone)
                    self._answer(200, {"jobsToStop": stops}) if stops else self._answer(204)
                case "POST", "job-done" if query["isStream"] == "false":
                    # aiohttp's name for it is the SDK's: JSON that calls itself a form.
                    assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
                    queue.finish(worker, rest[0], json.loads(body))
                    self._answer(200, {})
                case "GET", "ping":
                    queue.pings.append({"worker": worker, **query})
                    self._answer(200, {})
                case _:
                    self._answer(404)

        def _is_gone(self) -> bool:
            poll = select.poll()
            poll.register(self.connection, select.POLLRDHUP)
            return bool(poll.poll(0))

        def _answer(self, status: int, document: Any = None) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            if body:
                self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Says nothing."""

    return Handler


def _as_taken(job: QueuedJob) -> dict[str, Any]:
    return {"id": job.id, "input": job.input, "webhook": None}
