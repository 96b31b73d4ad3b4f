"""Looks a prompt over, runs prompts one after another, and remembers: what is asked again is not done again."""

import hashlib
import heapq
import inspect
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import nodes

Json = dict[str, Any]


class Refused(Exception):
    """A prompt that can't run: ``error`` and ``node_errors`` as `/prompt` answers them."""

    def __init__(self, error: Json, node_errors: Json) -> None:
        super().__init__(error["message"])
        self.body = {"error": error, "node_errors": node_errors}


def validate_prompt(prompt: Json) -> tuple[list[str], Json]:
    """Its output nodes that are in order, and what is wrong with the others.

    Values are converted to their inputs' types in place. Raises Refused where nothing of it can run.
    """
    for node_id, node in prompt.items():
        if node.get("class_type") not in nodes.NODE_CLASS_MAPPINGS:
            message = f"Node '{node.get('class_type')}' not found."
            raise Refused(_problem("missing_node_type", message, f"Node ID '#{node_id}'"), {})
    outputs = [n for n in prompt if getattr(_class_of(prompt[n]), "OUTPUT_NODE", False)]
    if not outputs:
        raise Refused(_problem("prompt_no_outputs", "Prompt has no outputs", ""), {})
    errors: dict[str, list[Json]] = {}
    node_errors: Json = {}
    good = []
    for output in outputs:
        wrong = [n for n in _above(prompt, output) if _errors_of(prompt, n, errors)]
        for node_id in wrong:
            entry = {"errors": errors[node_id], "class_type": prompt[node_id]["class_type"]}
            entry = node_errors.setdefault(node_id, {**entry, "dependent_outputs": []})
            entry["dependent_outputs"].append(output)
        good += [] if wrong else [output]
    if not good:
        message = "Prompt outputs failed validation"
        raise Refused(_problem("prompt_outputs_failed_validation", message, ""), node_errors)
    return good, node_errors


def _class_of(node: Json) -> Any:  # noqa: ANN401 - a node class, ComfyUI's or foreign
    return nodes.NODE_CLASS_MAPPINGS[node["class_type"]]


def _problem(kind: str, message: str, details: str) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _above(prompt: Json, output: str) -> list[str]:
    """The nodes that ``output`` needs, itself included."""
    found, pending = {output: None}, [output]
    while pending:
        values = prompt[pending.pop()]["inputs"].values()
        fresh = {v[0]: None for v in values if isinstance(v, list) and v[0] not in found}
        found |= fresh
        pending += fresh
    return list(found)


def _errors_of(prompt: Json, node_id: str, errors: dict[str, list[Json]]) -> list[Json]:
    if node_id not in errors:
        node = prompt[node_id]
        errors[node_id] = list(_look_at(_class_of(node), node["inputs"]))
    return errors[node_id]


def _look_at(cls: Any, inputs: Json) -> Iterator[Json]:  # noqa: ANN401 - a node class, ComfyUI's or foreign
    custom = getattr(cls, "VALIDATE_INPUTS", None)
    by_node = inspect.getfullargspec(custom).args[1:] if custom else []
    declared = cls.INPUT_TYPES()
    for name, config in {**declared.get("required", {}), **declared.get("optional", {})}.items():
        value, wanted = inputs.get(name), config[0]
        choices = config[1].get("options") if wanted == "COMBO" else wanted
        if name not in inputs and name in declared.get("required", {}):
            yield _about(name, "required_input_missing", "Required input is missing", name)
        elif name not in inputs or isinstance(value, list):
            continue
        elif wanted == "INT" and not isinstance(value, int):
            details = f"{name}, {value}, invalid literal for int()"
            message = "Failed to convert an input value to a INT value"
            yield _about(name, "invalid_input_type", message, details)
        elif name in by_node:
            answer = cls.VALIDATE_INPUTS(**{name: value})
            if answer is not True:
                message = "Custom validation failed for node"
                yield _about(name, "custom_validation_failed", message, f"{name} - {answer}")
        elif isinstance(choices, list) and value not in choices:
            details = f"{name}: {value!r} not in {choices[:20]}"
            more = {"input_config": [choices[:20], {}]}
            yield _about(name, "value_not_in_list", "Value not in list", details, **more)


def _about(name: str, kind: str, message: str, details: str, **extra: object) -> Json:
    return {**_problem(kind, message, details), "extra_info": {"input_name": name, **extra}}


class Interrupted(Exception):
    """A client asked to stop the running prompt."""


@dataclass(slots=True, order=True)
class Item:
    """One queued prompt; the smallest number runs first."""

    number: float
    prompt_id: str
    prompt: Json = field(compare=False)
    extra_data: Json = field(compare=False)
    outputs: list[str] = field(compare=False)
    node_id: str = field(default="", compare=False)
    messages: list[tuple[str, Json]] = field(default_factory=list, compare=False)
    shown: Json = field(default_factory=dict, compare=False)

    def as_json(self) -> list[Any]:
        """As `/queue` and `/history` show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """What waits, what runs and what has run; ``send`` tells a client, from any thread."""

    def __init__(self, send: Callable[[str, Json, str | None], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._interrupted = threading.Event()
        self._results: dict[str, Any] = {}
        self.pending: list[Item] = []
        self.running: Item | None = None
        self.history: dict[str, Json] = {}

    def put(self, item: Item) -> None:
        """Queues a prompt."""
        with self._changed:
            heapq.heappush(self.pending, item)
            self._changed.notify()

    def snapshot(self) -> tuple[list[Item], list[Item], dict[str, Json]]:
        """What runs, what waits in no order, and what has ended: of one moment."""
        with self._changed:
            return [self.running] if self.running else [], [*self.pending], {**self.history}

    def keep(self, wanted: Callable[[Item], bool]) -> None:
        """Takes all other prompts that wait out of the queue."""
        with self._changed:
            self.pending = [item for item in self.pending if wanted(item)]
            heapq.heapify(self.pending)

    def interrupt(self, prompt_id: str | None) -> None:
        """Stops the running prompt; with an id, only where it is that one."""
        if self.running is not None and prompt_id in {None, self.running.prompt_id}:
            self._interrupted.set()

    def run_forever(self) -> None:
        """Runs prompts as long as the process lives."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.pending)
                item = self.running = heapq.heappop(self.pending)
            begin = time.perf_counter()
            self._interrupted.clear()
            said = self._run(item)
            status = {"status_str": said, "completed": said == "success", "messages": item.messages}
            with self._changed:
                ended = {"prompt": item.as_json(), "outputs": item.shown, "status": status}
                self.history[item.prompt_id] = ended
                self.running = None
            self._tell(item, "executing", node=None)
            logging.info("Prompt executed in %.2f seconds", time.perf_counter() - begin)

    def _run(self, item: Item) -> str:
        nodes.report = lambda step, steps: self._report(item, step, steps)
        self._note(item, "execution_start")
        try:
            signatures: dict[str, str] = {}
            for node_id in item.prompt:
                self._sign(item, node_id, signatures)
            # ComfyUI remembers what the present prompt can use, and no more.
            used = set(signatures.values())
            self._results = {s: result for s, result in self._results.items() if s in used}
            cached = [n for n, signature in signatures.items() if signature in self._results]
            self._note(item, "execution_cached", nodes=cached)
            for output in item.outputs:
                self._execute(item, output, signatures)
        except Interrupted:
            self._note(item, "execution_interrupted", **_where(item))
            return "error"
        except Exception as error:  # a node may raise anything; the server stays up
            logging.exception("!!! Exception during processing !!!")
            told = {"exception_message": f"{error}\n", "exception_type": type(error).__qualname__}
            where = {**_where(item), "traceback": traceback.format_tb(error.__traceback__)}
            self._note(item, "execution_error", **told, **where)
            return "error"
        self._note(item, "execution_success")
        return "success"

    def _sign(self, item: Item, node_id: str, signatures: dict[str, str]) -> str:
        """What the node's result depends on: its class, its inputs, and those of all nodes above it."""
        if node_id not in signatures:
            item.node_id, node = node_id, item.prompt[node_id]
            cls, literal, above = _class_of(node), _literal(node), {}
            changed = cls.IS_CHANGED(**literal) if hasattr(cls, "IS_CHANGED") else None
            for name, value in node["inputs"].items():
                # An input that no class declares counts as well, though the node never gets it.
                linked = isinstance(value, list)
                above[name] = (
                    [self._sign(item, value[0], signatures), value[1]] if linked else value
                )
            parts = json.dumps([node["class_type"], above, changed], sort_keys=True)
            signatures[node_id] = hashlib.sha256(parts.encode()).hexdigest()
        return signatures[node_id]

    def _execute(self, item: Item, node_id: str, signatures: dict[str, str]) -> tuple[Any, ...]:
        """The node's values by slot."""
        node, signature = item.prompt[node_id], signatures[node_id]
        if signature not in self._results:
            given = _literal(node)
            for name, value in node["inputs"].items():
                if isinstance(value, list):
                    given[name] = self._execute(item, value[0], signatures)[value[1]]
            cls = _class_of(node)
            if "prompt" in cls.INPUT_TYPES().get("hidden", {}):
                given["prompt"] = item.prompt
            item.node_id = node_id
            self._check()
            self._tell(item, "executing", node=node_id, display_node=node_id)
            self._results[signature] = getattr(cls(), cls.FUNCTION)(**given)
        answer = self._results[signature]
        if not isinstance(answer, dict):
            return tuple(answer)
        if "ui" in answer:
            item.shown[node_id] = answer["ui"]
            self._tell(item, "executed", node=node_id, output=answer["ui"])
        return tuple(answer.get("result", ()))

    def _check(self) -> None:
        if self._interrupted.is_set():
            raise Interrupted

    def _report(self, item: Item, step: int, steps: int) -> None:
        self._check()
        self._tell(item, "progress", value=step, max=steps, node=item.node_id)

    def _note(self, item: Item, event: str, **data: object) -> None:
        """A message that also stays in the prompt's history."""
        item.messages.append((event, {"prompt_id": item.prompt_id, **data}))
        self._tell(item, event, **data)

    def _tell(self, item: Item, event: str, **data: object) -> None:
        client = item.extra_data.get("client_id")
        if client is not None:
            self._send(event, {"prompt_id": item.prompt_id, **data}, client)


def _literal(node: Json) -> Json:
    declared = _class_of(node).INPUT_TYPES()
    known = declared.get("required", {}).keys() | declared.get("optional", {}).keys()
    return {n: v for n, v in node["inputs"].items() if n in known and not isinstance(v, list)}


def _where(item: Item) -> Json:
    return {"node_id": item.node_id, "node_type": item.prompt[item.node_id]["class_type"]}
