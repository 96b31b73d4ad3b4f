"""How a prompt ended, read from ComfyUI's history, and what it made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Status

Json = dict[str, Any]

# An exception may hold a tensor's values; all of it is in ComfyUI's log.
_MOST_WORDS: Final = 4000


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
