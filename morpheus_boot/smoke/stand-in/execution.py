"""Queues prompts, looks them over, and runs them one after another, node by node, worded as in ComfyUI.

Results are remembered: what is asked again is not done again.
"""

import hashlib
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
Send = Callable[[str, Json, str | None], None]

_CONVERT: Final = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class Interrupted(Exception):
    """A client asked to stop the running prompt."""


class Progress:
    """Between the one thread that runs nodes and the server."""

    def __init__(self) -> None:
        self.interruption = threading.Event()
        self.report: Callable[[int, int], None] = lambda _value, _maximum: None

    def step(self, value: int, maximum: int) -> None:
        """One step of a node is done. Raises Interrupted once for each interruption asked for."""
        if self.interruption.is_set():
            self.interruption.clear()
            raise Interrupted
        self.report(value, maximum)


progress: Final = Progress()


@dataclass(frozen=True, slots=True)
class Item:
    """One queued prompt; the smallest number runs first."""

    number: float
    prompt_id: str
    prompt: Json
    extra_data: Json
    outputs: list[str]

    def as_json(self) -> list[Any]:
        """As `/queue` and `/history` show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """What waits, what runs and what has run; safe from any thread, ``on_change`` hears of every change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self.running: Item | None = None
        self.history: dict[str, Json] = {}

    def put(self, item: Item) -> None:
        """Queues a prompt."""
        with self._changed:
            self._waiting = sorted([*self._waiting, item], key=lambda one: one.number)
            self._changed.notify()
        self._on_change()

    def take(self) -> Item:
        """Waits for a prompt and makes it the running one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            item = self.running = self._waiting.pop(0)
        self._on_change()
        return item

    def finish(self, item: Item, result: Json) -> None:
        """The running prompt has ended with ``result``: outputs, meta and status."""
        with self._changed:
            self.history = {**self.history, item.prompt_id: {"prompt": item.as_json(), **result}}
            self.running = None
        self._on_change()

    def delete(self, body: Json) -> None:
        """Takes out of the queue what a `POST /queue` names: ``delete`` some, ``clear`` all."""
        with self._changed:
            kept = [] if body.get("clear") else self._waiting
            self._waiting = [one for one in kept if one.prompt_id not in body.get("delete", [])]
        self._on_change()

    def snapshot(self) -> Json:
        """As `/queue` answers."""
        with self._changed:
            running = [self.running.as_json()] if self.running else []
            waiting = [item.as_json() for item in self._waiting]
            return {"queue_running": running, "queue_pending": waiting}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``error`` None: the prompt is queued for ``outputs``, those output nodes that are in order."""

    outputs: list[str]
    error: Json | None = None
    node_errors: Json = field(default_factory=dict)


def validate_prompt(prompt: Json, classes: Json) -> Verdict:
    """Whether ``prompt`` can run. Values are converted to their inputs' types in place."""
    for node_id, node in prompt.items():
        kind = node.get("class_type")
        if kind not in classes:
            title = node.get("_meta", {}).get("title", kind)
            message = f"Node '{title}' not found. The custom node may not be installed."
            extra = {"node_id": node_id, "class_type": kind, "node_title": title}
            details = f"Node ID '#{node_id}'"
            return Verdict([], _problem("missing_node_type", message, details, **extra))
    outputs = [n for n in prompt if getattr(classes[prompt[n]["class_type"]], "OUTPUT_NODE", False)]
    if not outputs:
        return Verdict([], _problem("prompt_no_outputs", "Prompt has no outputs", ""))
    check = _Check(prompt, classes)
    wrong = [output for output in outputs if not check.passes(output)]
    # A node below a wrong one is not in order either, but has no errors of its own.
    node_errors: Json = {
        node_id: {
            "errors": errors,
            "dependent_outputs": wrong,
            "class_type": prompt[node_id]["class_type"],
        }
        for node_id, errors in check.errors.items()
        if errors
    }
    if len(wrong) < len(outputs):
        return Verdict([one for one in outputs if one not in wrong], node_errors=node_errors)
    said = [f"{e['message']}: {e['details']}" for errors in check.errors.values() for e in errors]
    failed, message = "prompt_outputs_failed_validation", "Prompt outputs failed validation"
    return Verdict([], _problem(failed, message, "\n".join(said)), node_errors)


def _problem(kind: str, message: str, details: str, **extra: object) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _about(name: str, kind: str, message: str, details: str | None = None) -> Json:
    return _problem(kind, message, details or name, input_name=name)


class _Check:
    """One walk over a prompt from its outputs upwards, each node once."""

    def __init__(self, prompt: Json, classes: Json) -> None:
        self._prompt = prompt
        self._classes = classes
        self._passed: dict[str, bool] = {}
        self.errors: dict[str, list[Json]] = {}

    def passes(self, node_id: str) -> bool:
        """Whether the node and all that it depends on are in order."""
        if node_id not in self._passed:
            self._passed[node_id] = False  # what a cycle finds
            self.errors[node_id] = []
            try:
                upstream = self._look_at(node_id)
            except Exception as error:  # noqa: BLE001 - a node's own code may raise anything
                kind, message = "exception_during_validation", "Exception when validating node"
                self.errors[node_id].append(_problem(kind, message, str(error)))
                upstream = False
            self._passed[node_id] = upstream and not self.errors[node_id]
        return self._passed[node_id]

    def _look_at(self, node_id: str) -> bool:
        """Fills the node's errors; whether what it is linked to is in order."""
        node, errors, upstream = self._prompt[node_id], self.errors[node_id], True
        cls, inputs = self._classes[node["class_type"]], node["inputs"]
        custom = getattr(cls, "VALIDATE_INPUTS", None)
        by_node = custom.__code__.co_varnames[: custom.__code__.co_argcount] if custom else ()
        declared = cls.INPUT_TYPES()
        for name, config in {**declared["required"], **declared.get("optional", {})}.items():
            value = inputs.get(name)
            if isinstance(value, list):
                source = self._classes[self._prompt[value[0]]["class_type"]]
                received, wanted = source.RETURN_TYPES[value[1]], config[0]
                if "*" not in {received, wanted} and received != wanted:
                    details = f"{name}, received_type({received}) mismatch input_type({wanted})"
                    message = "Return type mismatch between linked nodes"
                    errors.append(_about(name, "return_type_mismatch", message, details))
                upstream = self.passes(value[0]) and upstream
            elif name in inputs:
                errors += _value_problems(inputs, name, config, checked_by_node=name in by_node)
            elif name in declared["required"]:
                errors.append(_about(name, "required_input_missing", "Required input is missing"))
        given = {name: inputs[name] for name in by_node if not isinstance(inputs.get(name), list)}
        if custom is not None and not errors and (answer := custom(**given)) is not True:
            kind, message = "custom_validation_failed", "Custom validation failed for node"
            errors += [_about(name, kind, message, f"{name} - {answer}") for name in given]
        return upstream


def _value_problems(inputs: Json, name: str, config: Any, *, checked_by_node: bool) -> list[Json]:  # noqa: ANN401 - declared by a node
    wanted, options = config[0], config[1] if len(config) > 1 else {}
    try:
        if isinstance(wanted, str) and wanted in _CONVERT:
            inputs[name] = _CONVERT[wanted](inputs[name])
    except (TypeError, ValueError) as error:
        message = f"Failed to convert an input value to a {wanted} value"
        details = f"{name}, {inputs[name]}, {error}"
        return [_about(name, "invalid_input_type", message, details)]
    value, choices = inputs[name], options.get("options") if wanted == "COMBO" else wanted
    if isinstance(choices, list) and value not in choices and not checked_by_node:
        # A list of many models is not sent back.
        shown = f"(list of length {len(choices)})" if len(choices) > 20 else str(choices)
        details = f"{name}: {value!r} not in {shown}"
        return [_about(name, "value_not_in_list", "Value not in list", details)]
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_about(name, "value_smaller_than_min", message)]
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return [_about(name, "value_bigger_than_max", message)]
    return []


@dataclass(slots=True)
class _Run:
    """One prompt while it runs."""

    item: Item
    messages: list[tuple[str, Json]] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    node_id: str = ""

    @property
    def where(self) -> Json:
        kind = self.item.prompt[self.node_id]["class_type"]
        return {"node_id": self.node_id, "node_type": kind, "executed": list(self.executed)}


class Executor:
    """The one thread that runs nodes; ``send(event, data, client)`` tells clients, from any thread."""

    def __init__(self, queue: PromptQueue, classes: Json, send: Send) -> None:
        self._queue = queue
        self._classes = classes
        self._send = send
        # What a node answered, values by slot and what clients are shown, by all that it depends on.
        self._results: dict[str, tuple[tuple[Any, ...], Json | None]] = {}

    def run_forever(self) -> None:
        """Takes prompts from the queue as long as the process lives."""
        while True:
            item = self._queue.take()
            begin = time.perf_counter()
            run = _Run(item)
            done = self._run(run)
            status = {
                "status_str": "success" if done else "error",
                "completed": done,
                "messages": run.messages,
            }
            meta = {n: {"node_id": n, "display_node": n, "real_node_id": n} for n in run.outputs}
            self._queue.finish(item, {"outputs": run.outputs, "status": status, "meta": meta})
            self._tell(run, "executing", node=None)
            logging.info("Prompt executed in %.2f seconds", time.perf_counter() - begin)

    def _run(self, run: _Run) -> bool:
        progress.interruption.clear()
        progress.report = lambda value, maximum: self._tell(
            run, "progress", value=value, max=maximum, node=run.node_id
        )
        self._note(run, "execution_start")
        try:
            for output in run.item.outputs:
                self._sign(run, output)
            # ComfyUI remembers what the present prompt can use, and no more.
            used = set(run.signatures.values())
            self._results = {s: result for s, result in self._results.items() if s in used}
            cached = [n for n, signature in run.signatures.items() if signature in self._results]
            self._note(run, "execution_cached", nodes=cached)
            for output in run.item.outputs:
                self._execute(run, output)
        except Interrupted:
            logging.info("Processing interrupted")
            self._note(run, "execution_interrupted", **run.where)
            return False
        except Exception as error:  # a node may raise anything; the server stays up
            logging.exception("!!! Exception during processing !!! %s", error)  # noqa: TRY401 - as ComfyUI words it
            told = {
                "exception_message": f"{error}\n",
                "exception_type": type(error).__qualname__,
                "traceback": traceback.format_tb(error.__traceback__),
                "current_inputs": {},
                "current_outputs": list(run.executed),
            }
            self._note(run, "execution_error", **run.where, **told)
            return False
        self._note(run, "execution_success")
        return True

    def _sign(self, run: _Run, node_id: str) -> str:
        """What the node's result depends on: its class, its inputs, and those of all nodes above it."""
        if node_id not in run.signatures:
            run.node_id = node_id
            node = run.item.prompt[node_id]
            cls, inputs = self._classes[node["class_type"]], node["inputs"]
            changed = (
                cls.IS_CHANGED(**_literals(cls, inputs)) if hasattr(cls, "IS_CHANGED") else None
            )
            links = {n: v for n, v in inputs.items() if isinstance(v, list)}
            above = {n: (self._sign(run, v[0]), v[1]) for n, v in links.items()}
            # An input that no class declares counts as well, though the node never gets it.
            given = {n: v for n, v in inputs.items() if n not in links}
            parts = json.dumps([node["class_type"], given, above, changed], sort_keys=True)
            run.signatures[node_id] = hashlib.sha256(parts.encode()).hexdigest()
        return run.signatures[node_id]

    def _execute(self, run: _Run, node_id: str) -> tuple[Any, ...]:
        signature = run.signatures[node_id]
        if signature not in self._results:
            self._results[signature] = self._call(run, node_id)
            run.executed.append(node_id)
        values, ui = self._results[signature]
        if ui is not None:
            run.outputs[node_id] = ui
            self._tell(run, "executed", node=node_id, display_node=node_id, output=ui)
        return values

    def _call(self, run: _Run, node_id: str) -> tuple[tuple[Any, ...], Json | None]:
        node = run.item.prompt[node_id]
        cls = self._classes[node["class_type"]]
        values = _literals(cls, node["inputs"])
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                values[name] = self._execute(run, value[0])[value[1]]
        hidden = {
            "PROMPT": run.item.prompt,
            "EXTRA_PNGINFO": run.item.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
        }
        wanted = cls.INPUT_TYPES().get("hidden", {})
        values |= {name: hidden.get(kind) for name, kind in wanted.items()}
        run.node_id = node_id
        self._tell(run, "executing", node=node_id, display_node=node_id)
        if progress.interruption.is_set():
            raise Interrupted
        answer = getattr(cls(), cls.FUNCTION)(**values)
        if isinstance(answer, dict):
            return tuple(answer.get("result", ())), answer.get("ui")
        return tuple(answer), None

    def _note(self, run: _Run, event: str, **data: object) -> None:
        """A message that also stays in the prompt's history."""
        stamped = {"prompt_id": run.item.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        run.messages.append((event, stamped))
        self._tell(run, event, **stamped)

    def _tell(self, run: _Run, event: str, **data: object) -> None:
        client = run.item.extra_data.get("client_id")
        if client is not None:
            self._send(event, {**data, "prompt_id": run.item.prompt_id}, client)


def _literals(cls: Any, inputs: Json) -> Json:  # noqa: ANN401 - a node class, ComfyUI's or foreign
    declared = cls.INPUT_TYPES()
    known = declared.get("required", {}).keys() | declared.get("optional", {}).keys()
    return {n: v for n, v in inputs.items() if n in known and not isinstance(v, list)}
