"""The file -> Manifest, or all of its mistakes at once."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import all_of
from morpheus_boot.manifest.agreement import find_disagreements
from morpheus_boot.manifest.document import Document, Mistake, Place, Text, read_text, shown
from morpheus_boot.manifest.values import READ_AT, Manifest, ManifestFile

_NAME_ANOTHER: Final = "name one that can be read with --models or MORPHEUS_MODELS"
_FILE: Final = TypeAdapter(ManifestFile)
_UNKNOWN_KEY: Final = "unexpected_keyword_argument"
_SINGLE: Final = (
    "string_type",
    "int_type",
    "float_type",
    "bool_type",
    "literal_error",
    "is_instance_of",
)
_NOT_OF_ITS_KIND: Final = {
    "tuple_type": "is not a list",
    "dataclass_type": "is not a mapping",
    **dict.fromkeys(_SINGLE, "is not a single value"),
}


def read_manifest(path: Path, environ: Mapping[str, str]) -> Manifest:
    """Reads the manifest at ``path``; ``${NAME}`` in its values comes from ``environ``.

    Raises:
        ManifestError: its one mistake, or why it can't be read at all.
        UsageError: a variable that it names holds what no token can.
        SeveralErrors: of these, one a mistake, in the order of their lines.
    """
    document = Document(str(path), read_text(path, _NAME_ANOTHER), environ)
    file, mistakes = _validate(document)
    if file is None or mistakes:
        raise all_of([m.error for m in sorted(mistakes, key=lambda mistake: mistake.line)])
    # A number is no secret: taken for one it would blot out its like in every line of the log.
    brought = {n: value for n, value in document.brought.items() if not value.isdecimal()}
    secrets = tuple(map(Secret, brought.values()))
    return Manifest(
        path, file.volume, file.comfyui, file.models, file.nodes, secrets, tuple(brought)
    )


def _validate(document: Document) -> tuple[ManifestFile | None, list[Mistake]]:
    """What the file says where each field is right, and every mistake in it."""
    file, errors = None, list[ErrorDetails]()
    try:
        file = _FILE.validate_python(document.data, by_alias=True, by_name=False)
    except ValidationError as error:
        # It holds the values, with their tokens: no error of ours may have it as its cause.
        errors = error.errors(include_url=False)
    # A misspelt key is one mistake, and not also a missing one.
    meant = {_meant(error["loc"]) for error in errors if error["type"] == _UNKNOWN_KEY}
    found = {mistake.place for mistake in document.mistakes} | meant
    mistakes = [
        document.mistake(error["loc"], *said(error, error["loc"]))
        for error in errors
        if error["loc"] not in found
    ]
    return file, [*document.mistakes, *mistakes, *find_disagreements(document, meant)]


def said(error: ErrorDetails, place: Place) -> tuple[str, str]:
    """What pydantic found wrong at ``place`` of models.yaml, and what to do, in our words."""
    if error["type"] == _UNKNOWN_KEY:
        near, known = _meant(place)[-1], ", ".join(_fields(place[:-1]))
        cause = f"{shown(str(place[-1]))} is not a known key"
        return cause, f"did you mean {near}?" if near else f"use {known}"
    *entry, field = _shape(place)
    give = f"give {_fields(tuple(entry))[field]}"
    if error["type"] == "missing":
        return "is missing", give
    cause = _NOT_OF_ITS_KIND.get(error["type"], error["msg"])
    match error["input"]:
        case Text(plain=True) as text if not text:
            return "is empty", give
        case str() as text:
            what = shown(getattr(text, "written", text))
        case value:
            what = "a list" if isinstance(value, list) else "a mapping"
    return f"{what} {cause}", give


def _meant(place: Place) -> Place:
    """``place``, whose key is not known, with the one that was probably meant; with "" where none is near."""
    near = difflib.get_close_matches(str(place[-1]).lower(), _fields(place[:-1]), n=1)
    return (*place[:-1], *(near or [""]))


def _fields(place: Place) -> dict[str, str]:
    """What may stand in the mapping at ``place``: each key, and what to give there."""
    fields = READ_AT[_shape(place)].__pydantic_fields__.items()
    return {str(field.validation_alias or name): field.description for name, field in fields}


def _shape(place: Place) -> tuple[str, ...]:
    """``place`` without list positions."""
    return tuple(key for key in place if isinstance(key, str))
