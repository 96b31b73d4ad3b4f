"""The tree that models.yaml is before anything is known of its meaning, with a line for each mistake in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from morpheus_boot.config.redact import Redactor, Secret
from morpheus_boot.errors import ManifestError

_SHOWN_CHARACTERS: Final = 80

# Keys and list positions from the root: ("models", 2, "sha256").
Place: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text: ``text`` with its ``${NAME}`` replaced by what they ``brought``, ``written`` as in the file.

    Only ``written`` may be shown. ``plain`` is one without quotes, which may also be a number or nothing.
    """

    text: str = field(repr=False)
    written: str
    plain: bool
    brought: tuple[str, ...] = field(repr=False, default=())

    @property
    def is_null(self) -> bool:
        """Whether it says nothing, in one of YAML's ways."""
        return self.plain and self.written in {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a value whose mistake is known already, so that it is not named twice."""


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | Scalar | Unread"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the file; a place of () is the file itself."""

    line: int
    place: Place
    cause: str
    mend: str

    def error(self, name: str) -> ManifestError:
        """The mistake as an error in the file that is called ``name``."""
        where = f"{name} line {self.line}"
        subject = f"{where}, {field_name(self.place)}" if self.place else where
        return ManifestError(subject, self.cause, self.mend)


@dataclass(frozen=True, slots=True)
class Document:
    """The file's tree, and what was wrong with its values already.

    ``lines`` has the line of each key and list item, from 1, and of the root under (). ``secrets`` are the values of
    the ``variables`` that ``${NAME}`` named.
    """

    root: dict[str, Tree]
    lines: Mapping[Place, int]
    mistakes: tuple[Mistake, ...]
    secrets: tuple[Secret, ...]
    variables: tuple[str, ...]

    def line(self, place: Place) -> int:
        """The line of ``place``, or of what it is missing from."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def mistake(self, place: Place, cause: str, mend: str) -> Mistake:
        """A mistake at ``place``."""
        return Mistake(self.line(place), place, cause, mend)


def shown(text: str) -> str:
    """``text`` in quotes as an error may show it: short, on one line, without what looks like a secret."""
    text = Redactor()(text)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return f"'{_on_one_line(text)}'"


def field_name(place: Place) -> str:
    """``place`` as errors name it: ``models[2].sha256``."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{shown(key)[1:-1]}" for key in place)
    return "".join(keys).removeprefix(".")


def _on_one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
