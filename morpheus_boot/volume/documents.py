"""JSON that another version of this program may have written to the volume."""

from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


_T = TypeVar("_T", bound=_Dataclass)


def from_document(cls: type[_T], document: object) -> _T:
    """The ``cls``, a dataclass, that a parsed JSON document holds.

    Fields that this version does not know are passed over: while a fleet is updated, old workers read what new ones
    wrote. Raises TypeError where the document is no object, lacks a field that has no default, or holds in one what
    is not of its type.
    """
    if not isinstance(document, dict):
        raise TypeError(f"{type(document).__name__} instead of an object")
    hints = _hints(cls)
    found = {name: value for name, value in document.items() if name in hints}
    for name, value in found.items():
        if not _is_of(value, hints[name]):
            raise TypeError(f"{name} is {value!r}")
    return cls(**found)


@cache
def _hints(cls: type[_Dataclass]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _is_of(value: object, hint: object) -> bool:
    if isinstance(hint, UnionType):
        return any(_is_of(value, one) for one in get_args(hint))
    # True is an int to Python, and to nobody else.
    if isinstance(value, bool):
        return hint is bool
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and isinstance(value, kind)
