"""YAML text -> plain data, with a line for each mistake in it.

Every scalar stays the text that it is: each field knows its own type, and no resolver makes a number of a SHA-256 of
digits alone, or 1.1 of the tag 1.10.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.variables import parse_token
from morpheus_boot.errors import ManifestError, MorpheusError, UsageError

# The C parser reads 200 models in 6 ms, the Python one in 70; a PyYAML without libyaml has only that.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD_TAG: Final = "tag:yaml.org,2002:"
_MAX_DEPTH: Final = 20
_SHOWN_CHARACTERS: Final = 80
_SAVE_AS_UTF8: Final = "save it as UTF-8"
_BEGIN: Final = "begin with version: 1"
# $${ is a literal ${, so that a value can hold one.
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\$\{")

# Keys and list positions from the root: ("models", 2, "sha256").
Place: TypeAlias = tuple[str | int, ...]


class Text(str):
    """A scalar, each ``${NAME}`` in it replaced by what the variable ``brought``; empty where it is YAML's null.

    ``written`` is it as the file has it, which alone may be shown. ``plain``: it has no quotes, and so may also be a
    number or nothing.
    """

    __slots__ = ("brought", "plain", "written")
    written: str
    plain: bool
    brought: tuple[str, ...]

    def __repr__(self) -> str:
        return repr(self.written)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake, and where it is; a place of () is the file itself."""

    line: int
    place: Place
    error: MorpheusError


class Document:
    """What a YAML file holds: ``data`` of dict, list and Text, and the ``mistakes`` that left it readable.

    ``brought``: the values of the variables that were named, by name.
    """

    def __init__(self, name: str, text: str, environ: Mapping[str, str]) -> None:
        """Reads ``text``, the content of the file that errors call ``name``.

        Raises ManifestError where it is not YAML, not one document, or not a mapping at its top.
        """
        self._name = name
        self._environ = environ
        self._values: dict[int, Any] = {}
        self._root = _compose(name, text)
        self.mistakes: list[Mistake] = []
        self.brought: dict[str, str] = {}
        self.data: dict[str, Any] = self._value(self._root, ())

    def line(self, place: Place) -> int:
        """The line, from 1, of the key or list item at ``place``, or of what it is missing from."""
        node: yaml.Node = self._root
        line = 1
        for key in place:
            if isinstance(node, yaml.SequenceNode):
                node = node.value[int(key)]
                line = _line(node)
            else:
                at, node = next((n for n in node.value if n[0].value == key), (None, node))
                if at is None:
                    break
                line = _line(at)
        return line

    def mistake(self, place: Place, cause: str, mend: str, line: int | None = None) -> Mistake:
        """A mistake at ``place``, whose line it finds where it is not given."""
        line = self.line(place) if line is None else line
        where = f"{self._name} line {line}"
        subject = f"{where}, {field_name(place)}" if place else where
        return Mistake(line, place, ManifestError(subject, cause, mend))

    def _value(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - dict, list or Text
        # An alias stands for the node of its anchor: read once, a short file of aliases of aliases stays a small one.
        if id(node) in self._values:
            return self._values[id(node)]
        if len(place) > _MAX_DEPTH:
            cause = "is nested too deeply"
            raise self.mistake((), cause, "remove what is not needed there", _line(node)).error
        if not node.tag.startswith(_STANDARD_TAG):
            cause = f"tags ({node.tag}) are not read here"
            self._add(node, place, cause, "remove it, and put text in quotes")
        if isinstance(node, yaml.ScalarNode):
            return self._values.setdefault(id(node), self._text(node, place))
        if isinstance(node, yaml.SequenceNode):
            items: list[Any] = self._values.setdefault(id(node), [])
            items += (self._value(item, (*place, at)) for at, item in enumerate(node.value))
            return items
        fields: dict[str, Any] = self._values.setdefault(id(node), {})
        for key, value in node.value:
            at = (*place, key.value)
            if not isinstance(key, yaml.ScalarNode):
                self._add(key, place, "a key is not text", "write a name before the colon")
            elif key.value in fields:
                cause = f"stands here a second time, after line {self.line(at)}"
                self._add(key, at, cause, "keep one of the two")
            else:
                fields[key.value] = self._value(value, at)
        return fields

    def _text(self, node: yaml.ScalarNode, place: Place) -> Text:
        brought: list[str] = []

        def expanded(reference: re.Match[str]) -> str:
            if reference[0] == "$${":
                return "${"
            value = self._value_of(reference["name"], node, place)
            if value is None:
                return reference[0]
            brought.append(value)
            return value

        is_null = node.tag == f"{_STANDARD_TAG}null"
        text = Text("" if is_null else _REFERENCE.sub(expanded, node.value))
        text.written, text.plain, text.brought = node.value, not node.style, tuple(brought)
        return text

    def _value_of(self, variable: str | None, node: yaml.Node, place: Place) -> str | None:
        """What the environment has for a reference; None where that is a mistake, which is noted."""
        value = self._environ.get(variable, "") if variable else ""
        if variable is None:
            cause, mend = "a ${ is not followed by NAME}", "write ${NAME}, or $${ for a literal ${"
        elif not value.strip():
            state = "empty" if variable in self._environ else "not set"
            cause = f"the environment variable {variable} is {state}"
            mend = f"set it, or remove ${{{variable}}}"
        else:
            try:
                return self.brought.setdefault(variable, parse_token(variable, value))
            except UsageError as error:
                self.mistakes.append(Mistake(_line(node), place, error))
                return None
        self._add(node, place, cause, mend)
        return None

    def _add(self, node: yaml.Node, place: Place, cause: str, mend: str) -> None:
        self.mistakes.append(self.mistake(place, cause, mend, _line(node)))


def read_text(path: Path, mend: str) -> str:
    """The file's text. Raises ManifestError: it can't be read (``mend`` says what to do then), or is not UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ManifestError(str(path), "there is no such file", mend) from error
    except OSError as error:
        cause = f"can't be read ({(error.strerror or str(error)).lower()})"
        raise ManifestError(str(path), cause, mend) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{path} line 1", "is UTF-16", _SAVE_AS_UTF8)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        cause = f"holds the byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise ManifestError(f"{path} line {line}", cause, _SAVE_AS_UTF8) from error


def shown(text: str) -> str:
    """``text`` in quotes as an error may show it: short, on one line, without what looks like a secret."""
    text = Redactor()(text)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return f"'{printable(text)}'"


def printable(text: str) -> str:
    """``text`` with escapes for what can't be seen, which YAML mostly does not allow either."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def field_name(place: Place) -> str:
    """``place`` as errors name it: ``models[2].sha256``."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{shown(key)[1:-1]}" for key in place)
    return "".join(keys).removeprefix(".")


def _compose(name: str, text: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(name, text, error) from error
    except yaml.reader.ReaderError as error:
        # The C parser counts bytes here.
        line = text.encode()[: error.position].count(b"\n") + 1
        cause = f"holds the character U+{error.character:04X}, which YAML does not allow"
        raise ManifestError(f"{name} line {line}", cause, "remove it") from error
    if isinstance(root, yaml.MappingNode):
        return root
    if root is None or root.tag == f"{_STANDARD_TAG}null":
        line, cause = text.count("\n") + 1, "is empty"
    else:
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a text"
        line, cause = _line(root), f"is {kind} at its top, not a mapping of keys"
    raise ManifestError(f"{name} line {line}", cause, _BEGIN)


def _syntax_error(name: str, text: str, error: yaml.MarkedYAMLError) -> ManifestError:
    begin, end = error.context_mark, error.problem_mark or error.context_mark
    lines = text.split("\n")
    # libyaml puts what is missing at the end into a line after the last.
    line = min(end.line + 1, len(lines)) if end else 1
    begun = begin.line + 1 if begin else line
    written = lines[line - 1]
    cause = f"is not YAML ({error.problem}{f', {error.context} of line {begun}' if begun < line else ''})"
    mend = "check the indentation, quotes and brackets there"
    if "another document" in (error.problem or ""):
        cause, mend = "a second document begins here", "remove this ---"
    elif "\t" in written[: len(written) - len(written.lstrip())]:
        mend = "indent with spaces, not with tabs"
    elif "${" in written:
        mend = "put quotes around a value that holds ${NAME}"
    return ManifestError(f"{name} line {line}", cause, mend)


def _line(node: yaml.Node) -> int:
    # The stubs allow nodes without marks; neither parser makes any.
    return node.start_mark.line + 1 if node.start_mark else 1
