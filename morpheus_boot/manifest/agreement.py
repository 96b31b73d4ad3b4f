"""What no field shows by itself: one source a model, and no two things under one name.

It looks at the plain data, not at values, so that these mistakes are named together with all others.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

from morpheus_boot.manifest.document import Document, Mistake, Place, field_name

_SOURCES: Final = ("url", "huggingface", "civitai")
_ONE_SOURCE: Final = "give exactly one of url, huggingface, civitai"


def find_disagreements(document: Document, meant: Collection[Place]) -> Iterator[Mistake]:
    """Every mistake between fields; ``meant`` are those whose keys are misspelt."""
    models = list(_entries(document, "models"))
    for place, model in models:
        given = [key for key in model if key in _SOURCES]
        is_misspelt = not given and any((*place, key) in meant for key in _SOURCES)
        if len(given) != 1 and not is_misspelt:
            cause = f"has {' and '.join(given) or 'no source'}"
            yield document.mistake(place, cause, _ONE_SOURCE)
    yield from _shared_places(document, [at for entry in models for at in _places(*entry)])
    names: dict[str, Place] = {}
    for entry, node in _entries(document, "custom_nodes"):
        if isinstance(name := node.get("name"), str):
            place = (*entry, "name")
            if names.setdefault(name, place) != place:
                yield _shared(document, place, names[name], "is the same folder as")


def _shared_places(document: Document, places: list[tuple[Place, str]]) -> Iterator[Mistake]:
    """Paths and links are names below one folder, ComfyUI's models/: none twice, none a folder of another."""
    files: dict[str, Place] = {}
    folders: dict[str, Place] = {}
    for place, text in places:
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


def _shared(document: Document, place: Place, other: Place, how: str) -> Mistake:
    where = f"{field_name(other)} of line {document.line(other)}"
    return document.mistake(place, f"{how} {where}", "change or remove one of the two")


def _places(entry: Place, model: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """The places below ComfyUI's models/ that a model asks for, each with where it says so."""
    if isinstance(path := model.get("path"), str):
        yield (*entry, "path"), path
    links = model.get("links")
    for position, link in enumerate(links if isinstance(links, list) else ()):
        if isinstance(link, str):
            yield (*entry, "links", position), link


def _entries(document: Document, key: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Those items of the list under ``key`` that are mappings."""
    items = document.data.get(key)
    for position, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield (key, position), item
