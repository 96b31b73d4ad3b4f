"""JSON documents on the volume, to and from dataclasses and pydantic models.

While a fleet is updated, old workers read what new ones wrote: fields that this version does not know are passed over.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

_T = TypeVar("_T")

_adapter: Final[Callable[[Any], TypeAdapter[Any]]] = cache(TypeAdapter)


def to_document(value: object, *, indent: int | None = None) -> bytes:
    """``value`` as JSON, on one line without ``indent``."""
    return _adapter(type(value)).dump_json(value, indent=indent)


def from_document(kind: type[_T], document: bytes) -> _T:
    """The ``kind`` that ``document`` holds; a number in quotes is a string and no number, a bool no number.

    Raises ValueError where it is no JSON, lacks a field that has no default, or holds in one what is not of its type.
    """
    try:
        value: _T = _adapter(kind).validate_json(document, strict=True)
    except ValidationError as error:
        raise ValueError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        ) from None
    return value
