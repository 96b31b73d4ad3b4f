"""ComfyUI's own words for a prompt that is refused, which its browser side and other clients show at the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .prompts import Json, Refusal  # noqa: TID252 - found by its folder

_FAILED = "Custom validation failed for node"


def refused(prompt: Json, refusals: Sequence[Refusal], classes: Mapping[str, Any]) -> Json:
    """The body of the 400, as execution.validate_prompt and server.post_prompt make it."""
    errors = [(refusal.node_id, _error(refusal)) for refusal in refusals]
    return {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "\n".join(f"{_FAILED}: {error['details']}" for _, error in errors),
            "extra_info": {},
        },
        "node_errors": {
            node_id: {
                "errors": [error for other, error in errors if other == node_id],
                "dependent_outputs": _outputs_below(prompt, node_id, classes),
                "class_type": prompt[node_id]["class_type"],
            }
            for node_id in dict.fromkeys(node_id for node_id, _ in errors)
        },
    }


def _error(refusal: Refusal) -> Json:
    return {
        "type": "custom_validation_failed",
        "message": _FAILED,
        "details": f"{refusal.input_name} - {refusal.message}",
        "extra_info": {"input_name": refusal.input_name},
    }


def _outputs_below(prompt: Json, node_id: str, classes: Mapping[str, Any]) -> list[str]:
    """The output nodes that need ``node_id``, itself included."""
    below, pending = {node_id}, [node_id]
    while pending:
        above = pending.pop()
        for other, node in prompt.items():
            if other not in below and above in _linked(node):
                below.add(other)
                pending.append(other)
    return [n for n in prompt if n in below and _is_output(prompt[n], classes)]


def _linked(node: Any) -> list[Any]:  # noqa: ANN401 - any JSON
    inputs = node.get("inputs") if isinstance(node, dict) else None
    values = inputs.values() if isinstance(inputs, dict) else ()
    return [value[0] for value in values if isinstance(value, list) and value]


def _is_output(node: Json, classes: Mapping[str, Any]) -> bool:
    kind = node.get("class_type")
    node_class = classes.get(kind) if isinstance(kind, str) else None
    return getattr(node_class, "OUTPUT_NODE", False) is True
