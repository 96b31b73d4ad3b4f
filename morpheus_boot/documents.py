"""JSON that another version of this program may have written to the volume."""

from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


_T = TypeVar("_T", bound=_Dataclass)


def from_document(cls: type[_T], document: object) -> _T:
    """The ``cls``, a dataclass, that a parsed JSON document holds.

    Fields that this version does not know are passed over: while a fleet is updated, old workers read what new ones
    wrote. Raises TypeError where the document is no object, or lacks a field that has no default.
    """
    if not isinstance(document, dict):
        raise TypeError(f"{type(document).__name__} instead of an object")
    known = {field.name for field in fields(cls)}
    return cls(**{name: value for name, value in document.items() if name in known})
