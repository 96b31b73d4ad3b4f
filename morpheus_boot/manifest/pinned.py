"""models.yaml with digests, sizes and commits filled in, its comments and its order kept."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

from ruamel.yaml import YAML

_WIDTH = 10_000  # no line is broken that was whole
_SOURCES = ("url", "huggingface", "civitai")


@dataclass(frozen=True, slots=True)
class Pin:
    """What is known of one model; ``revision`` is a Hugging Face commit."""

    sha256: str | None
    size_bytes: int | None
    revision: str | None = None


def pinned_text(text: str, models: Iterable[Pin], commits: Iterable[str]) -> str:
    """``text``, a right models.yaml, with each model's pin and each node's commit in it, in the order of both lists."""
    yaml = YAML()  # the round-trip reader: it keeps comments, quotes and flow style
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for model, pin in zip(document.get("models") or (), models, strict=True):
        if pin.revision is not None:
            model["huggingface"]["revision"] = pin.revision
        after_source = 1 + max(list(model).index(k) for k in model if k in _SOURCES)
        for key, value in (("size", pin.size_bytes), ("sha256", pin.sha256)):
            if key in model and value is not None:
                model[key] = value
            elif value is not None:
                model.insert(after_source, key, value)
    for node, commit in zip(document.get("custom_nodes") or (), commits, strict=True):
        node["ref"] = commit
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()
