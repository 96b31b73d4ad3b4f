"""The runner's side of ComfyUI: its HTTP routes and its WebSocket, over loopback.

Facts from ComfyUI's server.py and execution.py, 0.3.64 and 0.33.0: an id that the client chose is kept
as the prompt's; ``/history/<id>`` has a prompt once it has ended, ``/queue`` until then; the socket's
messages go to the client that sent the prompt.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, Self

import aiohttp

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.jobs.json_values import parse_plainly
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Status
from morpheus_boot.jobs.workflows import Graph, in_short

Json = dict[str, Any]

# A ComfyUI that loads a model may not answer for as long as that takes.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0, sock_connect=5.0)
# A node may show a client whatever it likes.
_LONGEST_MESSAGE_BYTES: Final = 64 * 2**20
_BEAT_S: Final = 20.0
# Our node in ComfyUI puts the prompt's files into this job (comfyui/guard/middleware.py).
_JOB_HEADER: Final = "X-Morpheus-Job"
_BAD_REQUEST: Final = 400
# Our ids, and those that ComfyUI draws.
_PROMPT_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
# Those of a value that is not among thousands of models hold them all; the words say the same.
_MOST_NODE_ERRORS: Final = 500
# An exception may hold a tensor's values; all of it is in ComfyUI's log.
_MOST_WORDS: Final = 4000


class ComfyUIGone(MorpheusError):
    """Nobody listens on ComfyUI's port: its process is not there."""

    exit_code = Exit.UNAVAILABLE


class ComfyUISilent(MorpheusError):
    """ComfyUI is there and does not answer, or answers nonsense."""

    exit_code = Exit.UNAVAILABLE


class ComfyUIFails(ComfyUISilent):
    """ComfyUI answers, and with an error of its own."""


class PromptRejected(MorpheusError):
    """ComfyUI refuses the prompt; ``node_errors`` are its own."""

    exit_code = Exit.USAGE

    def __init__(self, cause: str, node_errors: Json) -> None:
        super().__init__("prompt", cause, "mend the graph or its parameters")
        self.node_errors = node_errors


class QueuePlace(StrEnum):
    """Where a prompt is in ComfyUI's queue."""

    PENDING = "pending"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A prompt that ComfyUI has queued; ``node_errors`` tell of output nodes that it leaves out."""

    prompt_id: str
    node_errors: Json


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended.

    ``named`` are the files below its output/ that nodes named, in order; ``texts`` what nodes said, by their ids.
    """

    status: Status
    error: str | None = None
    node_errors: Json | None = None
    named: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


class ComfyUIClient:
    """The ComfyUI of this container. Every method raises ComfyUIGone or ComfyUISilent."""

    def __init__(self, port: int, token: Secret | None, client_id: str) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._client_id = client_id
        headers = {} if token is None else {"X-Morpheus-Token": token.reveal()}
        self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def submit(self, graph: Graph, prompt_id: str, job: JobId) -> Accepted:
        """Queues ``graph`` under ``prompt_id``, its files going to ``job``. Raises PromptRejected."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self._client_id}
        status, answer = await self._ask("POST", "/prompt", body, {_JOB_HEADER: job.text})
        if isinstance(answer, dict):
            node_errors = _node_errors(answer)
            if status == _BAD_REQUEST and "error" in answer:
                raise PromptRejected(_refusal(answer["error"], node_errors), node_errors)
            if status == 200 and _PROMPT_ID.fullmatch(str(answer.get("prompt_id"))):
                return Accepted(str(answer["prompt_id"]), node_errors)
        raise self._nonsense("/prompt", status)

    async def history(self, prompt_id: str) -> Json | None:
        """How the prompt ended; None while it has not, or where ComfyUI does not know it."""
        status, answer = await self._ask("GET", f"/history/{prompt_id}")
        if status != 200 or not isinstance(answer, dict):
            raise self._nonsense("/history", status)
        entry = answer.get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def place(self, prompt_id: str) -> QueuePlace | None:
        """Where the prompt is in the queue; None where it is not in it."""
        status, answer = await self._ask("GET", "/queue")
        if status != 200 or not isinstance(answer, dict):
            raise self._nonsense("/queue", status)
        for place in QueuePlace:
            if any(item[1] == prompt_id for item in answer.get(f"queue_{place}", ())):
                return place
        return None

    async def queue_length(self) -> int:
        """How many prompts it has to run, what runs included."""
        status, answer = await self._ask("GET", "/prompt")
        match answer:
            case {"exec_info": {"queue_remaining": int(length)}}:
                return length
        raise self._nonsense("/prompt", status)

    async def withdraw(self, prompt_id: str) -> None:
        """Takes the prompt out of the queue, or interrupts it where it runs."""
        await self._ask("POST", "/queue", {"delete": [prompt_id]})
        # An older ComfyUI does not look at the id, and would interrupt somebody else's.
        if await self.place(prompt_id) is QueuePlace.RUNNING:
            await self._ask("POST", "/interrupt", {"prompt_id": prompt_id})

    async def listen(self, on_message: Callable[[str, Json], None]) -> None:
        """Hands each message's type and data to ``on_message`` until the socket closes, however it does."""
        url = f"{self._base}/ws?clientId={self._client_id}"
        try:
            async with self._session.ws_connect(
                url, heartbeat=_BEAT_S, max_msg_size=_LONGEST_MESSAGE_BYTES
            ) as socket:
                async for message in socket:
                    # What is binary is a preview.
                    if message.type is aiohttp.WSMsgType.TEXT:
                        _hand_on(message.data, on_message)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error

    async def _ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer, None where that is none."""
        try:
            async with self._session.request(
                method, self._base + path, json=body, headers=headers
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error
        return answer.status, parse_plainly(content)

    def _nonsense(self, path: str, status: int) -> ComfyUISilent:
        # 503 is our guard's while the volume is away, which passes.
        kind = ComfyUISilent if status == HTTPStatus.SERVICE_UNAVAILABLE else ComfyUIFails
        return kind("ComfyUI", f"it answered {path} with {status}", "look at its log")


def read_ending(entry: Json, job: JobId) -> Ending:
    """The ending that an entry of ``/history`` tells of."""
    status, outputs = entry.get("status") or {}, entry.get("outputs") or {}
    named = tuple(dict.fromkeys(_named(outputs, f"{job}/output")))
    texts = tuple(_texts(outputs))
    if status.get("status_str", "success") == "success":
        return Ending(Status.DONE, named=named, texts=texts)
    error = _failure(status.get("messages") or ())
    return Ending(Status.FAILED, error, named=named, texts=texts)


def _failure(messages: Any) -> str:  # noqa: ANN401 - ComfyUI's JSON
    for kind, data in reversed(list(messages)):
        node = f"{data.get('node_type')} (node {data.get('node_id')})"
        if kind == "execution_error":
            said = " ".join(str(data.get("exception_message", "")).split())
            return f"{node}: {data.get('exception_type')}: {said}"[:_MOST_WORDS]
        if kind == "execution_interrupted":
            return f"{node}: it was interrupted in ComfyUI"
    return "ComfyUI says that it failed, and not why"


def _named(outputs: Json, folder: str) -> Iterator[str]:
    """Files of type output below ``folder``, as {"filename", "subfolder", "type"} in lists of any name."""
    for shown in outputs.values():
        for listed in shown.values() if isinstance(shown, dict) else ():
            for one in listed if isinstance(listed, list) else ():
                if not isinstance(one, dict) or one.get("type", "output") != "output":
                    continue
                path = f"{one.get('subfolder', '')}/{one.get('filename', '')}"
                if path.startswith(f"{folder}/"):
                    yield path.removeprefix(f"{folder}/")


def _texts(outputs: Json) -> Iterator[tuple[str, str]]:
    """What nodes show as {"text": [...]}, a node's lines together."""
    for node, shown in outputs.items():
        said = shown.get("text") if isinstance(shown, dict) else None
        lines = [said] if isinstance(said, str) else said
        if isinstance(lines, list) and lines and all(isinstance(line, str) for line in lines):
            yield str(node), "\n".join(lines)


def _hand_on(text: str, on_message: Callable[[str, Json], None]) -> None:
    message = parse_plainly(text)
    if isinstance(message, dict) and isinstance(message.get("data"), dict):
        on_message(str(message.get("type")), message["data"])


def _node_errors(answer: Json) -> Json:
    """What is wrong, by the ids of the nodes; of many nodes the first."""
    told = answer.get("node_errors")
    nodes = list(told.items()) if isinstance(told, dict) else []
    return {node: entry for node, entry in nodes[:_MOST_NODE_ERRORS] if isinstance(entry, dict)}


def _refusal(error: object, node_errors: Json) -> str:
    """ComfyUI's words for what is wrong with a prompt, on one line: those about nodes, where there are any."""
    said = [
        f"{entry.get('class_type')} (node {node}): {_told(one)}"
        for node, entry in node_errors.items()
        for one in entry.get("errors") or ()
    ]
    return in_short(said) or _told(error)


def _told(error: object) -> str:
    if not isinstance(error, dict):
        return " ".join(str(error).split())
    said = (str(error.get("message") or "it is refused"), str(error.get("details") or ""))
    return ": ".join(" ".join(one.split()) for one in said if one)


def _translated(error: Exception) -> MorpheusError:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionRefusedError
    ):
        return ComfyUIGone("ComfyUI", "it is not running", "see its lines in the log")
    silent = isinstance(error, TimeoutError)
    cause = "it does not answer" if silent else f"the connection broke ({type(error).__name__})"
    return ComfyUISilent("ComfyUI", cause, "see its lines in the log")
