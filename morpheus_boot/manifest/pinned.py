"""models.yaml with digests, sizes and commits filled in, its comments and its order kept."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML

_WIDTH = 10_000  # no line is broken that was whole


@dataclass(frozen=True, slots=True)
class Pin:
    """What is known of one model; ``revision`` is a Hugging Face commit."""

    sha256: str | None
    size_bytes: int | None
    revision: str | None = None


def pinned_text(text: str, models: Mapping[str, Pin], commits: Mapping[str, str]) -> str:
    """``text``, which is a right models.yaml, with each model's pin and each node's commit in it.

    ``models`` by path, ``commits`` by a node's name; what has neither stays as it is.
    """
    yaml = YAML()  # the round-trip reader: it keeps comments, quotes and flow style
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for model in document.get("models") or ():
        pin = models.get(model["path"])
        if pin is None:
            continue
        if pin.revision is not None:
            model["huggingface"]["revision"] = pin.revision
        at = list(model).index(_source_key(model)) + 1
        for key, value in (("size", pin.size_bytes), ("sha256", pin.sha256)):
            if value is None:
                continue
            if key in model:
                model[key] = value
            else:
                model.insert(at, key, value)
    for node in document.get("custom_nodes") or ():
        node["ref"] = commits.get(node["name"], node["ref"])
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _source_key(model: Mapping[str, object]) -> str:
    return next(key for key in ("url", "huggingface", "civitai") if key in model)
