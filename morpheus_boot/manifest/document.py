"""YAML text -> Document.

The tree is built from the parser's events rather than by a loader: they carry the lines, the anchors, and each
scalar's own text, which no resolver has made into another type (a SHA-256 of digits alone stays what it is).
"""

from collections.abc import Iterator, Mapping
from typing import Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import ManifestError
from morpheus_boot.manifest.references import expand
from morpheus_boot.manifest.tree import Document, Mistake, Place, Scalar, Tree, Unread

# The C parser reads 200 models in 5 ms, the Python one in 100; a PyYAML without libyaml has only that.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH: Final = 20
_BEGIN: Final = "begin with version: 1"


def read_document(name: str, text: str, environ: Mapping[str, str]) -> Document:
    """Parses ``text``, the content of the file that errors call ``name``, and replaces ``${NAME}`` in its values.

    Mistakes that leave the rest readable (a duplicate key, an unset name) come with the document.

    Raises:
        ManifestError: it is not YAML, not one document, or not a mapping at its top.
    """
    builder = _Builder(name, yaml.parse(text, Loader=_LOADER), environ)
    try:
        root = builder.build()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(name, text, error) from error
    except yaml.reader.ReaderError as error:
        # The C parser counts bytes here.
        line = text.encode()[: error.position].count(b"\n") + 1
        raise ManifestError(
            f"{name} line {line}",
            f"holds the character U+{error.character:04X}, which YAML does not allow",
            "remove it",
        ) from error
    return Document(
        root,
        builder.lines,
        tuple(builder.mistakes),
        secrets=tuple(map(Secret, builder.brought)),
        variables=tuple(builder.variables),
    )


def _syntax_error(name: str, text: str, error: yaml.MarkedYAMLError) -> ManifestError:
    begin, end = error.context_mark, error.problem_mark or error.context_mark
    lines = text.split("\n")
    # libyaml puts what is missing at the end into a line after the last.
    line = min(end.line + 1, len(lines)) if end else 1
    begun = begin.line + 1 if begin else line
    context = f", {error.context} of line {begun}" if begun < line else ""
    written = lines[line - 1]
    if "\t" in written[: len(written) - len(written.lstrip())]:
        mend = "indent with spaces, not with tabs"
    elif "${" in written:
        mend = "put quotes around a value that holds ${NAME}"
    else:
        mend = "check the indentation, quotes and brackets there"
    return ManifestError(f"{name} line {line}", f"is not YAML ({error.problem}{context})", mend)


class _Builder:
    """Builds the tree, and collects lines, mistakes, and what the environment brought in."""

    def __init__(self, name: str, events: Iterator[Event], environ: Mapping[str, str]) -> None:
        self._name = name
        self._events = events
        self._environ = environ
        self.lines: dict[Place, int] = {(): 1}
        self.mistakes: list[Mistake] = []
        self.brought: list[str] = []
        self.variables: list[str] = []

    def build(self) -> dict[str, Tree]:
        next(self._events)  # the stream begins
        begin = next(self._events)
        if isinstance(begin, StreamEndEvent):
            raise self._error(begin, "is empty", _BEGIN)
        top = next(self._events)
        root = self._node(top, ())
        next(self._events)  # the document ends
        after = next(self._events)
        if isinstance(after, DocumentStartEvent):
            raise self._error(after, "a second document begins here", "remove this ---")
        if isinstance(root, dict):
            return root
        if isinstance(root, Scalar) and root.is_null:
            raise self._error(top, "is empty", _BEGIN)
        if isinstance(root, Unread):
            raise self.mistakes[0].error(self._name)
        kind = "a list" if isinstance(root, list) else "a text"
        raise self._error(top, f"is {kind} at its top, not a mapping of keys", _BEGIN)

    def _node(self, event: Event, place: Place) -> Tree:
        if len(place) > _MAX_DEPTH:
            raise self._error(event, "is nested too deeply", "remove what is not needed there")
        refused = self._refuses(event, place)
        tree: Tree = Unread()
        if isinstance(event, ScalarEvent):
            tree = self._scalar(event, place)
        elif isinstance(event, MappingStartEvent):
            tree = self._mapping(place)
        elif isinstance(event, CollectionStartEvent):
            tree = self._sequence(place)
        return Unread() if refused else tree

    def _refuses(self, event: Event, place: Place) -> bool:
        # An alias of an alias makes a short file a huge one, and no list of models needs any.
        if isinstance(event, NodeEvent) and event.anchor is not None:
            sign = "*" if isinstance(event, AliasEvent) else "&"
            cause = f"anchors and aliases ({sign}{event.anchor}) are not read here"
            self._mistake(event, place, cause, "write the value out, in quotes if it is text")
            return True
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            self._mistake(
                event, place, "tags (!) are not read here", "remove it, and put text in quotes"
            )
            return True
        return False

    def _sequence(self, place: Place) -> list[Tree]:
        items: list[Tree] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            at = (*place, len(items))
            self.lines.setdefault(at, _line(event))
            items.append(self._node(event, at))
        return items

    def _mapping(self, place: Place) -> dict[str, Tree]:
        fields: dict[str, Tree] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self._mistake(event, place, "a key is not text", "write a name before the colon")
                self._node(event, (*place, "?"))
                self._node(next(self._events), (*place, "?"))
                continue
            at = (*place, event.value)
            self._refuses(event, at)
            if event.value in fields:
                cause = f"stands here a second time, after line {self.lines[at]}"
                self._mistake(event, at, cause, "keep one of the two")
                self._node(next(self._events), at)
            else:
                self.lines[at] = _line(event)
                fields[event.value] = self._node(next(self._events), at)
        return fields

    def _scalar(self, event: ScalarEvent, place: Place) -> Scalar | Unread:
        expansion = expand(event.value, self._environ)
        for fault in expansion.faults:
            self._mistake(event, place, fault.cause, fault.mend)
        # A number is no secret: taken for one it would blot out its like in every line of the log.
        if not expansion.text.isdecimal():
            self.brought += expansion.brought
            self.variables += expansion.names
        if expansion.faults:
            return Unread()
        return Scalar(expansion.text, event.value, not event.style, expansion.brought)

    def _mistake(self, event: Event, place: Place, cause: str, mend: str) -> None:
        self.mistakes.append(Mistake(_line(event), place, cause, mend))

    def _error(self, event: Event, cause: str, mend: str) -> ManifestError:
        return Mistake(_line(event), (), cause, mend).error(self._name)


def _line(event: Event) -> int:
    # The stubs allow events without marks; neither parser makes any.
    return event.start_mark.line + 1 if event.start_mark else 1
