"""Runs prompts one after another, node by node, and remembers results: what is asked again is not done again."""

import hashlib
import json
import logging
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

import nodes
from progress import Interrupted, progress
from prompt_queue import Item, PromptQueue

Json = dict[str, Any]


class Messages(Protocol):
    """Where messages to clients go; ``sid`` None: to every client."""

    def send_sync(self, event: str, data: Json, sid: str | None) -> None:
        """Sends from any thread."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What a node answered: values by slot, and what clients are shown."""

    values: tuple[Any, ...]
    ui: Json | None


@dataclass(slots=True)
class _Run:
    """One prompt while it runs."""

    item: Item
    client_id: str | None
    messages: list[tuple[str, Json]] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    states: Json = field(default_factory=dict)
    node_id: str = ""


class Executor:
    """The one thread that runs nodes."""

    def __init__(self, queue: PromptQueue, server: Messages) -> None:
        self._queue = queue
        self._server = server
        self._results: dict[str, _Result] = {}

    def run_forever(self) -> None:
        """Takes prompts from the queue as long as the process lives."""
        while True:
            item = self._queue.take()
            begin = time.perf_counter()
            run = _Run(item, item.extra_data.get("client_id"))
            success = self._run(run)
            status = {
                "status_str": "success" if success else "error",
                "completed": success,
                "messages": run.messages,
            }
            meta = {n: {"node_id": n, "display_node": n, "real_node_id": n} for n in run.outputs}
            self._queue.finish(item, {"outputs": run.outputs, "status": status, "meta": meta})
            if run.client_id is not None:
                self._send(run, "executing", node=None)
            logging.info("Prompt executed in %.2f seconds", time.perf_counter() - begin)

    def _run(self, run: _Run) -> bool:
        progress.interrupt(wanted=False)
        progress.report = lambda value, maximum: self._progressed(run, value, maximum)
        self._note(run, "execution_start")
        try:
            for node_id in run.item.prompt:
                self._sign(run, node_id)
            # ComfyUI remembers what the present prompt can use, and no more.
            used = set(run.signatures.values())
            self._results = {s: result for s, result in self._results.items() if s in used}
            cached = [n for n, signature in run.signatures.items() if signature in self._results]
            self._note(run, "execution_cached", nodes=cached)
            for output in run.item.outputs:
                self._execute(run, output)
        except Interrupted:
            logging.info("Processing interrupted")
            self._note(run, "execution_interrupted", broadcast=True, **_where(run))
            return False
        except Exception as error:  # a node may raise anything; the server stays up
            logging.exception("!!! Exception during processing !!! %s", error)  # noqa: TRY401 - as ComfyUI words it
            self._note(
                run,
                "execution_error",
                **_where(run),
                exception_message=f"{error}\n",
                exception_type=type(error).__qualname__,
                traceback=traceback.format_tb(error.__traceback__),
                current_inputs={},
                current_outputs=list(run.executed),
            )
            return False
        self._note(run, "execution_success")
        return True

    def _sign(self, run: _Run, node_id: str) -> str:
        """What the node's result depends on: its class, its inputs, and those of all nodes above it."""
        if node_id not in run.signatures:
            run.node_id = node_id
            node = run.item.prompt[node_id]
            cls, inputs = nodes.NODE_CLASS_MAPPINGS[node["class_type"]], node["inputs"]
            literal = _literal_inputs(cls, inputs)
            changed = cls.IS_CHANGED(**literal) if hasattr(cls, "IS_CHANGED") else None
            links = {n: v for n, v in inputs.items() if isinstance(v, list)}
            above = {n: (self._sign(run, v[0]), v[1]) for n, v in links.items()}
            # An input that no class declares counts as well, though the node never gets it.
            given = {n: v for n, v in inputs.items() if n not in links}
            parts = json.dumps([node["class_type"], given, above, changed], sort_keys=True)
            run.signatures[node_id] = hashlib.sha256(parts.encode()).hexdigest()
        return run.signatures[node_id]

    def _execute(self, run: _Run, node_id: str) -> _Result:
        signature = run.signatures[node_id]
        result = self._results.get(signature)
        if result is None:
            result = self._results[signature] = self._call(run, node_id)
            run.executed.append(node_id)
        if result.ui is not None:
            run.outputs[node_id] = result.ui
            if run.client_id is not None:
                shown = {"node": node_id, "display_node": node_id, "output": result.ui}
                self._send(run, "executed", **shown)
        return result

    def _call(self, run: _Run, node_id: str) -> _Result:
        node = run.item.prompt[node_id]
        cls = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
        values = _literal_inputs(cls, node["inputs"])
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                values[name] = self._execute(run, value[0]).values[value[1]]
        hidden = {
            "PROMPT": run.item.prompt,
            "EXTRA_PNGINFO": run.item.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
        }
        wanted = cls.INPUT_TYPES().get("hidden", {})
        values |= {name: hidden.get(kind) for name, kind in wanted.items()}
        run.node_id = node_id
        progress.check()
        self._state(run, "running", 0, 1)
        if run.client_id is not None:
            self._send(run, "executing", node=node_id, display_node=node_id)
        answer = getattr(cls(), cls.FUNCTION)(**values)
        self._state(run, "finished", 1, 1)
        if isinstance(answer, dict):
            return _Result(tuple(answer.get("result", ())), answer.get("ui"))
        return _Result(tuple(answer), None)

    def _progressed(self, run: _Run, value: int, maximum: int) -> None:
        self._state(run, "running", value, maximum)
        self._send(run, "progress", value=value, max=maximum, node=run.node_id)

    def _state(self, run: _Run, state: str, value: int, maximum: int) -> None:
        """Tells how far each node is that has begun."""
        ids = ("node_id", "display_node_id", "real_node_id")
        run.states[run.node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "prompt_id": run.item.prompt_id,
            "parent_node_id": None,
            **dict.fromkeys(ids, run.node_id),
        }
        self._send(run, "progress_state", nodes={**run.states})

    def _note(self, run: _Run, event: str, *, broadcast: bool = False, **data: object) -> None:
        """A message that also stays in the prompt's history."""
        stamped = {
            "prompt_id": run.item.prompt_id,
            **data,
            "timestamp": int(time.time() * 1000),
        }
        run.messages.append((event, stamped))
        if run.client_id is not None or broadcast:
            self._server.send_sync(event, stamped, run.client_id)

    def _send(self, run: _Run, event: str, **data: object) -> None:
        self._server.send_sync(event, {**data, "prompt_id": run.item.prompt_id}, run.client_id)


def _literal_inputs(cls: Any, inputs: Json) -> Json:  # noqa: ANN401 - a node class, ComfyUI's or foreign
    declared = cls.INPUT_TYPES()
    known = declared.get("required", {}).keys() | declared.get("optional", {}).keys()
    return {n: v for n, v in inputs.items() if n in known and not isinstance(v, list)}


def _where(run: _Run) -> Json:
    return {
        "node_id": run.node_id,
        "node_type": run.item.prompt[run.node_id]["class_type"],
        "executed": list(run.executed),
    }
