"""Reads a prompt as its nodes will, and decides what of it is put right and what is refused. Touches nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .paths import Places, PrefixEscapes, Sender, place

Json = dict[str, Any]

# "SaveLoRANode" in ComfyUI 0.3, "SaveLoRA" since its nodes are V3.
_PREFIX_BY_CLASS = {"SaveLoRANode": "prefix", "SaveLoRA": "prefix"}
# Core nodes that write <folder_name>/<filename_prefix>_00000.png, the prefix unchecked (comfy_extras/nodes_dataset.py).
_DATASET_CLASSES = frozenset({"SaveImageDataSetToFolder", "SaveImageTextDataSetToFolder"})
# What core nodes join to a path unchecked at execution, where a value that comes over a link can't be seen here.
_LITERAL_ALONE = {
    **dict.fromkeys(_DATASET_CLASSES, ("folder_name", "filename_prefix")),
    "DiffusersLoader": ("model_path",),
}
# ComfyUI hands a node only what its class declares, but counts every input for its cache
# (comfy_execution/caching.py): a file that was cleaned up since is so made again, not answered from memory.
_UNDECLARED = "morpheus_run"
# More than anyone reads: a prompt may hold thousands, and ComfyUI answers nobody else while we look at them.
_MOST_REFUSALS = 100


@dataclass(frozen=True)
class Refusal:
    """An input that may not be, and why."""

    node_id: str
    input_name: str
    message: str


@dataclass(frozen=True)
class Destination:
    """The folder, relative to output and temp, that a node writes into."""

    node_id: str
    input_name: str
    folder: str


@dataclass(frozen=True)
class Decision:
    """The prompt as it should run, the folders that it needs, and what is refused (then nothing of it may run).

    At most a hundred refusals: what comes after them is not looked at.
    """

    prompt: Json
    destinations: tuple[Destination, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def decide(
    prompt: Json,
    classes: Mapping[str, Any],
    places: Places,
    sender: Sender,
    fresh: str | None = None,
) -> Decision:
    """What becomes of ``prompt``; ``classes`` is ComfyUI's NODE_CLASS_MAPPINGS.

    With a ``fresh`` value, which no prompt had before, nodes that save do so each time.
    What is no node, or of an unknown class, is left as it is: ComfyUI refuses it in its own words.
    """
    reader = _Reader(classes, places, sender, fresh)
    changed = {node_id: reader.read(node_id, node) for node_id, node in prompt.items()}
    return Decision(changed, tuple(reader.destinations), tuple(reader.refusals))


class _Reader:
    """Goes through the nodes of one prompt and collects what it finds."""

    def __init__(
        self, classes: Mapping[str, Any], places: Places, sender: Sender, fresh: str | None
    ) -> None:
        self._classes = classes
        self._places = places
        self._sender = sender
        self._fresh = fresh
        self._choices: dict[str, dict[str, frozenset[str]]] = {}
        self.destinations: list[Destination] = []
        self.refusals: list[Refusal] = []

    def read(self, node_id: str, node: Any) -> Any:
        """``node`` as it should run."""
        kind = node.get("class_type") if isinstance(node, dict) else None
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(kind, str) or kind not in self._classes or not isinstance(inputs, dict):
            return node
        for name in _LITERAL_ALONE.get(kind, ()):
            if isinstance(inputs.get(name), list):
                self._refuse(node_id, name, "it must be written here, not linked")
        saving = self._saving(node_id, kind, inputs)
        reading = {k: v for k, v in inputs.items() if k not in saving and not isinstance(v, list)}
        read = {**inputs, **self._reading(node_id, kind, reading), **saving}
        if self._fresh is not None and getattr(self._classes[kind], "OUTPUT_NODE", False):
            # With its id: of two nodes that save the same, ComfyUI would run one.
            read[_UNDECLARED] = f"{self._fresh}-{node_id}"
        return {**node, "inputs": read}

    def _saving(self, node_id: str, kind: str, inputs: Json) -> Json:
        """The inputs that say where the node writes."""
        name = _PREFIX_BY_CLASS.get(kind, "filename_prefix")
        if kind in _DATASET_CLASSES:
            return self._saving_dataset(node_id, inputs)
        if name not in inputs or isinstance(inputs[name], list):
            return {}
        return {name: self._place(node_id, name, _text(inputs[name]))}

    def _saving_dataset(self, node_id: str, inputs: Json) -> Json:
        names = ("folder_name", "filename_prefix")
        if any(isinstance(inputs.get(name, []), list) for name in names):
            return {}
        joined = posixpath.join(*(_text(inputs[name]) for name in names))
        folder, prefix = posixpath.split(self._place(node_id, "folder_name", joined))
        return {"folder_name": folder, "filename_prefix": prefix}

    def _place(self, node_id: str, name: str, prefix: str) -> str:
        if self._is_enough():
            return prefix
        try:
            placed = place(prefix, self._places, self._sender)
        except PrefixEscapes as escape:
            self._refuse(node_id, name, str(escape))
            return prefix
        self.destinations.append(Destination(node_id, name, posixpath.dirname(placed)))
        return placed

    def _reading(self, node_id: str, kind: str, inputs: Json) -> Json:
        """The other inputs; those that name a file by a choice are held to ComfyUI's own directories."""
        choices = self._choices_of(kind)
        return {
            name: self._file(node_id, name, value, choices[name])
            if name in choices
            else self._translated(value)
            for name, value in inputs.items()
        }

    def _choices_of(self, kind: str) -> dict[str, frozenset[str]]:
        """The inputs that the class declares as a list of choices; asked once, since it may list a directory for it."""
        if kind not in self._choices:
            try:
                self._choices[kind] = dict(_declared_choices(self._classes[kind].INPUT_TYPES()))
            except Exception:  # noqa: BLE001 - a stranger's class: ComfyUI asks it again, and then says what it raised
                self._choices[kind] = {}
        return self._choices[kind]

    def _file(self, node_id: str, name: str, value: Any, choices: frozenset[str]) -> Any:
        if isinstance(value, dict) and "__value__" in value:
            return {**value, "__value__": self._file(node_id, name, value["__value__"], choices)}
        if isinstance(value, list):
            return [self._file(node_id, name, one, choices) for one in value]
        if not isinstance(value, str) or value in choices or self._is_enough():
            return value
        relative = self._places.below_jobs(self._places.split(value)[0])
        annotated = value if relative is None else f"{relative} [output]"
        if not self._places.hold(self._places.located(annotated)):
            self._refuse(node_id, name, f"{value!r:.200} lies outside of input, temp and output")
        return annotated

    def _translated(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._places.here(value) or value
        if isinstance(value, list):
            return [self._translated(one) for one in value]
        if isinstance(value, dict):
            return {name: self._translated(one) for name, one in value.items()}
        return value

    def _refuse(self, node_id: str, name: str, message: str) -> None:
        if not self._is_enough():
            self.refusals.append(Refusal(node_id, name, message))

    def _is_enough(self) -> bool:
        return len(self.refusals) >= _MOST_REFUSALS


def _declared_choices(declared: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Both forms: ``(["a", "b"], {...})`` and ``("COMBO", {"options": ["a", "b"]})``, the only one of V3 nodes."""
    for section in ("required", "optional"):
        for name, spec in (declared.get(section) or {}).items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else None
            if isinstance(kind, str) and "COMBO" in kind.split(","):
                # Choices that the browser asks for elsewhere ("remote") are not listed at all.
                kind = (options.get("options") if isinstance(options, dict) else None) or ()
            if isinstance(kind, (list, tuple)):
                yield name, frozenset(choice for choice in kind if isinstance(choice, str))


def _text(value: Any) -> str:
    """A literal as ComfyUI makes a string of it (execution.validate_inputs)."""
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    return str(value)
