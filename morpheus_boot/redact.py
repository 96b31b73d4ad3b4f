"""Secrets: a type that doesn't print itself, and the one place that takes them out of text."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_HIDDEN: Final = "[secret]"

# Query fields that carry a credential: Civitai's token, the signatures of S3, CloudFront, GCS and Azure.
_QUERY: Final = re.compile(
    r"(?i)([?&](?:[\w.-]*(?:token|key|secret|signature|password|credential)[\w.-]*|policy|sig|auth)=)[^&#\s'\"]+"
)
_USERINFO: Final = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/@\s'\"]+@")
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{6,}")
_HF_TOKEN: Final = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


class Secret:
    """A string that shows itself only to who asks by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one header or digest that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret()"

    def __str__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Redactor:
    """Takes the known secrets, and whatever looks like one, out of a text."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._known: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        """Learns more secrets: those that models.yaml took from the environment."""
        known = {*self._known, *(s.reveal() for s in secrets)}
        # Longest first: one secret may begin another. Under four characters it would blot out words.
        self._known = tuple(sorted((k for k in known if len(k) >= 4), key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """``text`` as it may be logged, shown, or written to the volume."""
        for value in self._known:
            text = text.replace(value, _HIDDEN)
        text = _QUERY.sub(rf"\1{_HIDDEN}", text)
        text = _USERINFO.sub(rf"\1{_HIDDEN}@", text)
        text = _BEARER.sub(rf"\1{_HIDDEN}", text)
        return _HF_TOKEN.sub(_HIDDEN, text)


def without_secrets(url: str) -> str:
    """``url`` without user, password, fragment, and the query fields that carry a credential.

    The same model keeps the same name when a token is renewed, so this is what records compare.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    kept = [field for field in parts.query.split("&") if field and not is_secret_field(field)]
    return urlunsplit((parts.scheme, host, parts.path, "&".join(kept), ""))


def is_secret_field(field: str) -> bool:
    """Whether ``name=value``, a field of a URL's query, carries a credential by its name."""
    return _QUERY.fullmatch(f"?{field}") is not None
