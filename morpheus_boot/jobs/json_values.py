"""JSON from outside, brought once to a form that every later step can hold.

JSON may say more than what is saved and answered here: lone surrogates (half an emoji that JavaScript cut in two),
1e400, a thousand brackets. Clients' bodies, ComfyUI's answers and the names of its files all come through here.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

# ComfyUI, pydantic and Python each give up somewhere above 190; real graphs are 6 deep.
MAX_DEPTH: Final = 64
_DEEPEST: Final = 150
# As JSON these take seconds to read; real graphs have some thousands.
_MOST_VALUES: Final = 1_000_000
_MOST_CHARACTERS: Final = 64_000_000
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Place = tuple[str, ...]


def plain_text(text: str) -> str:
    """``text`` with U+FFFD in the place of each lone surrogate, so that it can be encoded."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def parse_plainly(content: bytes | str) -> Any:  # noqa: ANN401 - any JSON
    """The JSON of a program that means well; null where it is none, and in the place of what can't be held."""
    try:
        return _Copying(lambda _place, _cause: None, _DEEPEST).copy(json.loads(content), ())
    except (ValueError, RecursionError):
        return None


def require_plain(
    value: Any,  # noqa: ANN401 - any JSON
    refuse: Callable[[Place, str], NoReturn],
    most_depth: int = MAX_DEPTH,
) -> Any:  # noqa: ANN401 - any JSON
    """A copy of a client's JSON that can be held; ``refuse`` hears where something can't, and why, and raises.

    That is also where there is too much of it.
    """
    return _Copying(refuse, most_depth, _MOST_VALUES, _MOST_CHARACTERS).copy(value, ())


class _Copying:
    def __init__(
        self,
        refuse: Callable[[Place, str], None],
        most_depth: int,
        most_values: float = math.inf,
        most_characters: float = math.inf,
    ) -> None:
        self._refuse = refuse
        self._most_depth = most_depth
        self._most_values = most_values
        self._most_characters = most_characters
        self._values = 0
        self._characters = 0

    def copy(self, value: Any, place: Place) -> Any:  # noqa: ANN401 - any JSON
        self._values += 1
        if self._values > self._most_values:
            return self._refuse(place, f"there are more than {self._most_values} values")
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(place, "it is not a finite number")
        return self._nested(value, place) if isinstance(value, dict | list) else value

    def _nested(self, value: dict[str, Any] | list[Any], place: Place) -> Any:  # noqa: ANN401 - any JSON
        if len(place) >= self._most_depth:
            return self._refuse(place, f"it is nested more than {self._most_depth} deep")
        if isinstance(value, list):
            return [self.copy(one, (*place, str(n))) for n, one in enumerate(value)]
        return {
            self._text(name, place): self.copy(one, (*place, name)) for name, one in value.items()
        }

    def _text(self, text: str, place: Place) -> str | None:
        self._characters += len(text)
        if self._characters > self._most_characters:
            return self._refuse(place, f"it makes more than {self._most_characters} characters")
        return plain_text(text)
