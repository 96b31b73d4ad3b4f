"""The tree against the schema: pydantic's errors, said as ours."""

import difflib
from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from morpheus_boot.manifest.schema import ENTRIES, ManifestEntry
from morpheus_boot.manifest.tree import Document, Mistake, Place, Scalar, Unread, shown

_NOT_OF_ITS_KIND: Final = {"list_type": "is not a list", "model_type": "is not a mapping"}


def validate(document: Document) -> ManifestEntry | tuple[Mistake, ...]:
    """The document's entries, or every mistake that a field shows by itself."""
    try:
        return ManifestEntry.model_validate(document.root)
    except ValidationError as error:
        return tuple(_mistakes(document, error.errors(include_url=False)))


def nearest_key(place: Place) -> str | None:
    """The known key that the one at ``place`` was probably meant to be; None where none is near."""
    entry, key = ENTRIES[_shape(place[:-1])], str(place[-1])
    near = difflib.get_close_matches(key.lower(), entry.model_fields, n=1)
    return near[0] if near else None


def _mistakes(document: Document, errors: list[ErrorDetails]) -> Iterator[Mistake]:
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    meant = {(*place[:-1], nearest_key(place)) for place in unknown}
    for error in errors:
        place = error["loc"]
        if place in unknown:
            yield _unknown_key(document, place)
        elif error["type"] == "missing":
            # A misspelt key is one mistake, not two.
            if place not in meant:
                yield document.mistake(place, "is missing", f"give {_expected(place)}")
        elif not isinstance(error["input"], Unread):
            yield document.mistake(place, _cause(error), f"give {_expected(place)}")


def _unknown_key(document: Document, place: Place) -> Mistake:
    near = nearest_key(place)
    known = ", ".join(ENTRIES[_shape(place[:-1])].model_fields)
    mend = f"did you mean {near}?" if near else f"use {known}"
    return document.mistake(place, f"{shown(str(place[-1]))} is not a known key", mend)


def _cause(error: ErrorDetails) -> str:
    value = error["input"]
    cause = _NOT_OF_ITS_KIND.get(error["type"], error["msg"])
    if isinstance(value, Scalar):
        return "is empty" if value.is_null else f"{shown(value.written)} {cause}"
    return f"a {'list' if isinstance(value, list) else 'mapping'} {cause}"


def _expected(place: Place) -> str:
    *entry, field = _shape(place)
    return str(ENTRIES[tuple(entry)].model_fields[field].description)


def _shape(place: Place) -> tuple[str, ...]:
    """``place`` without list positions."""
    return tuple(key for key in place if isinstance(key, str))
