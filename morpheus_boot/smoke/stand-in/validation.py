"""Looks a prompt over before it is queued, and words what is wrong as ComfyUI does."""

import inspect
import traceback
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import nodes

Json = dict[str, Any]

_CONVERT: Final = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``error`` None: the prompt is queued for ``outputs``, those output nodes that are in order."""

    outputs: list[str]
    error: Json | None = None
    node_errors: Json = field(default_factory=dict)


def validate_prompt(prompt: Json, targets: Collection[str] | None) -> Verdict:
    """Whether ``prompt`` can run; ``targets`` are the output nodes asked for, None all.

    Values are converted to their inputs' types in place.
    """
    for node_id, node in prompt.items():
        if node.get("class_type") not in nodes.NODE_CLASS_MAPPINGS:
            return Verdict([], _missing_type(node_id, node))
    outputs = [
        node_id
        for node_id, node in prompt.items()
        if getattr(nodes.NODE_CLASS_MAPPINGS[node["class_type"]], "OUTPUT_NODE", False) is True
        and (targets is None or node_id in targets)
    ]
    if not outputs:
        return Verdict([], _problem("prompt_no_outputs", "Prompt has no outputs", ""))
    return _verdict(prompt, outputs)


def _verdict(prompt: Json, outputs: list[str]) -> Verdict:
    check = _Check(prompt)
    good: list[str] = []
    details: list[str] = []
    node_errors: Json = {}
    for output in outputs:
        if check.passes(output):
            good.append(output)
            continue
        details += [f"{error['message']}: {error['details']}" for error in check.errors[output]]
        for node_id, errors in check.errors.items():
            # A node below a wrong one is not in order either, but has no errors of its own.
            if errors:
                entry = {
                    "errors": errors,
                    "dependent_outputs": [],
                    "class_type": prompt[node_id]["class_type"],
                }
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return Verdict(good, node_errors=node_errors)
    message = "Prompt outputs failed validation"
    error = _problem("prompt_outputs_failed_validation", message, "\n".join(details))
    return Verdict([], error, node_errors)


def _problem(kind: str, message: str, details: str, **extra: object) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _missing_type(node_id: str, node: Json) -> Json:
    class_type = node.get("class_type")
    title = node.get("_meta", {}).get("title", class_type)
    message = (
        f"Node '{title}' not found. The custom node may not be installed."
        if class_type
        else f"Node 'ID #{node_id}' has no class_type."
    )
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return _problem("missing_node_type", message, f"Node ID '#{node_id}'", **extra)


class _Check:
    """One walk over a prompt from its outputs upwards, each node once."""

    def __init__(self, prompt: Json) -> None:
        self._prompt = prompt
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
                message = "Exception when validating node"
                problem = _problem(
                    "exception_during_validation",
                    message,
                    str(error),
                    exception_type=type(error).__name__,
                    traceback=traceback.format_tb(error.__traceback__),
                )
                self.errors[node_id].append(problem)
                upstream = False
            self._passed[node_id] = upstream and not self.errors[node_id]
        return self._passed[node_id]

    def _look_at(self, node_id: str) -> bool:
        """Fills the node's errors; whether what it is linked to is in order."""
        node = self._prompt[node_id]
        cls, inputs = nodes.NODE_CLASS_MAPPINGS[node["class_type"]], node["inputs"]
        custom = getattr(cls, "VALIDATE_INPUTS", None)
        spec = inspect.getfullargspec(custom) if custom else None
        checked_by_node = set(spec.args) if spec else set()
        takes_all = bool(spec and spec.varkw)
        declared, upstream = cls.INPUT_TYPES(), True
        for section in ("required", "optional"):
            for name, config in declared.get(section, {}).items():
                if name not in inputs:
                    if section == "required":
                        problem = _about(
                            name, "required_input_missing", "Required input is missing"
                        )
                        self.errors[node_id].append(problem)
                elif isinstance(inputs[name], list):
                    upstream = self._follow(node_id, name, config, inputs[name]) and upstream
                else:
                    own = takes_all or name in checked_by_node
                    self.errors[node_id] += _value_problems(inputs, name, config, limits=not own)
        if custom is not None and not self.errors[node_id]:
            literal = {n: v for n, v in inputs.items() if not isinstance(v, list)}
            given = {n: v for n, v in literal.items() if takes_all or n in checked_by_node}
            answer = custom(**given)
            if answer is not True:
                reason = f" - {answer}" if answer is not False else ""
                message = "Custom validation failed for node"
                self.errors[node_id] += [
                    _about(name, "custom_validation_failed", message, f"{name}{reason}")
                    for name in given
                ]
        return upstream

    def _follow(self, node_id: str, name: str, config: Any, link: list[Any]) -> bool:  # noqa: ANN401 - declared by a node
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            problem = _about(name, "bad_linked_input", message, received_value=link)
            self.errors[node_id].append(problem)
            return True
        source = nodes.NODE_CLASS_MAPPINGS[self._prompt[link[0]]["class_type"]]
        received, wanted = source.RETURN_TYPES[link[1]], config[0]
        if "*" not in {received, wanted} and received != wanted:
            details = f"{name}, received_type({received}) mismatch input_type({wanted})"
            message = "Return type mismatch between linked nodes"
            problem = _about(name, "return_type_mismatch", message, details, linked_node=link)
            self.errors[node_id].append(problem)
            return True
        return self.passes(link[0])


def _about(name: str, kind: str, message: str, details: str | None = None, **extra: object) -> Json:
    return _problem(kind, message, details or name, input_name=name, **extra)


def _value_problems(inputs: Json, name: str, config: Any, *, limits: bool) -> list[Json]:  # noqa: ANN401 - declared by a node
    wanted, options = config[0], config[1] if len(config) > 1 else {}
    try:
        value = inputs[name] = _CONVERT.get(wanted if isinstance(wanted, str) else "", _same)(
            inputs[name]
        )
    except (TypeError, ValueError) as error:
        message = f"Failed to convert an input value to a {wanted} value"
        details = f"{name}, {inputs[name]}, {error}"
        return [_about(name, "invalid_input_type", message, details)]
    if not limits:
        return []
    extra = {"input_config": [wanted, options], "received_value": value}
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_about(name, "value_smaller_than_min", message, **extra)]
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return [_about(name, "value_bigger_than_max", message, **extra)]
    choices = options.get("options", []) if wanted == "COMBO" else wanted
    if isinstance(choices, list) and value not in choices:
        # A list of many models is not sent back.
        many = len(choices) > 20
        shown = f"(list of length {len(choices)})" if many else str(choices)
        extra["input_config"] = None if many else extra["input_config"]
        details = f"{name}: {value!r} not in {shown}"
        return [_about(name, "value_not_in_list", "Value not in list", details, **extra)]
    return []


def _same(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return value
