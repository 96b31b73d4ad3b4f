"""What a node class declares about its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any


def choices_of(node_class: Any) -> dict[str, Collection[Any]]:  # noqa: ANN401 - ComfyUI's class or a stranger's
    """The inputs that ``node_class`` declares as a list of choices, each with its list.

    Both forms: ``(["a", "b"], {...})`` and ``("COMBO", {"options": ["a", "b"]})``, the only one of V3 nodes.
    """
    declared = node_class.INPUT_TYPES()
    return dict(
        pair
        for section in ("required", "optional")
        for pair in _choices_in(declared.get(section) or {})
    )


def _choices_in(section: dict[str, Any]) -> Iterator[tuple[str, Collection[Any]]]:
    for name, spec in section.items():
        kind, options = spec[0], spec[1] if len(spec) > 1 else None
        if isinstance(kind, (list, tuple)):
            yield name, kind
        elif isinstance(kind, str) and "COMBO" in kind.split(","):
            listed = options.get("options") if isinstance(options, dict) else None
            # Choices that the browser asks for elsewhere ("remote") are not listed at all.
            yield name, listed if isinstance(listed, (list, tuple)) else ()
