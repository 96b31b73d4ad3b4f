"""What no field shows by itself: one source a model, and no two things under one name.

It looks at the tree, not at entries, so that these mistakes are named together with all others.
"""

from collections.abc import Iterator
from typing import Final

from morpheus_boot.manifest.tree import Document, Mistake, Place, Scalar, Tree, field_name
from morpheus_boot.manifest.validation import nearest_key

_SOURCES: Final = ("url", "huggingface", "civitai")
_ONE_SOURCE: Final = "give exactly one of url, huggingface, civitai"


def find_disagreements(document: Document) -> tuple[Mistake, ...]:
    """Every mistake between fields."""
    return (
        *_wrong_sources(document),
        *_shared_places(document),
        *_shared_node_names(document),
    )


def _wrong_sources(document: Document) -> Iterator[Mistake]:
    for place, model in _entries(document, "models"):
        given = [key for key in model if key in _SOURCES]
        if len(given) > 1:
            yield document.mistake(place, f"has {' and '.join(given)}", _ONE_SOURCE)
        # A misspelt key is one mistake, not two.
        elif not given and not any(nearest_key((*place, key)) in _SOURCES for key in model):
            yield document.mistake(place, "has no source", _ONE_SOURCE)


def _shared_places(document: Document) -> Iterator[Mistake]:
    """Paths and links are names below one folder, ComfyUI's models/: none twice, none a folder of another."""
    files: dict[str, Place] = {}
    folders: dict[str, Place] = {}
    for place, text in _model_places(document):
        parts = text.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if text in files:
            yield _shared(document, place, files[text], "is the same place as")
        elif text in folders:
            yield _shared(document, place, folders[text], "is a folder of")
        elif in_file := next((folder for folder in above if folder in files), None):
            yield _shared(document, place, files[in_file], "lies below the file of")
        files.setdefault(text, place)
        for folder in above:
            folders.setdefault(folder, place)


def _shared_node_names(document: Document) -> Iterator[Mistake]:
    names: dict[str, Place] = {}
    for entry, node in _entries(document, "custom_nodes"):
        place, name = (*entry, "name"), node.get("name")
        if isinstance(name, Scalar):
            if name.text in names:
                yield _shared(document, place, names[name.text], "is the same folder as")
            names.setdefault(name.text, place)


def _shared(document: Document, place: Place, other: Place, how: str) -> Mistake:
    where = f"{field_name(other)} of line {document.line(other)}"
    return document.mistake(place, f"{how} {where}", "change or remove one of the two")


def _model_places(document: Document) -> Iterator[tuple[Place, str]]:
    for entry, model in _entries(document, "models"):
        path, links = model.get("path"), model.get("links")
        if isinstance(path, Scalar):
            yield (*entry, "path"), path.text
        for position, link in enumerate(links if isinstance(links, list) else ()):
            if isinstance(link, Scalar):
                yield (*entry, "links", position), link.text


def _entries(document: Document, key: str) -> Iterator[tuple[Place, dict[str, Tree]]]:
    """Those items of the list under ``key`` that are mappings."""
    items = document.root.get(key)
    for position, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield (key, position), item
