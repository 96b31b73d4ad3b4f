"""``${NAME}`` in a value: what the environment brings in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from morpheus_boot.config.variables import parse_token
from morpheus_boot.errors import UsageError

# $${ is a literal ${, so that a value can hold one.
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)(?P<end>\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Fault:
    """A reference that brings nothing in: ``cause`` and ``mend`` as an error says them."""

    cause: str
    mend: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """A value with its references replaced; ``brought`` are the values that the variables ``names`` stood for."""

    text: str
    brought: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


def is_environment_name(text: str) -> bool:
    """Whether ``text`` may name an environment variable."""
    return _NAME.fullmatch(text) is not None


def expand(text: str, environ: Mapping[str, str]) -> Expansion:
    """Replaces each ``${NAME}`` in ``text``, and ``$${`` by ``${``; what is brought in is not read again."""
    if "${" not in text:
        return Expansion(text)
    brought: dict[str, str] = {}
    faults: list[Fault] = []

    def value_of(reference: re.Match[str]) -> str:
        name = reference["name"]
        if name is None:
            return "${"
        if not reference["end"] or not is_environment_name(name):
            faults.append(
                Fault("a ${ is not followed by NAME}", "write ${NAME}, or $${ for a literal ${")
            )
        elif not environ.get(name, "").strip():
            state = "empty" if name in environ else "not set"
            faults.append(
                Fault(
                    f"the environment variable {name} is {state}", f"set it, or remove ${{{name}}}"
                )
            )
        else:
            try:
                brought[name] = parse_token(name, environ[name])
            except UsageError as error:
                faults.append(Fault(f"the environment variable {name}: {error.cause}", error.mend))
            else:
                return brought[name]
        return reference[0]

    expanded = _REFERENCE.sub(value_of, text)
    return Expansion(expanded, tuple(brought.values()), tuple(brought), tuple(faults))
