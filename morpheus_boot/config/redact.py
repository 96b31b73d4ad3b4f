"""Secrets: a type that doesn't print itself, and the one place that takes them out of text."""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_HIDDEN: Final = "[secret]"

# One word of a name is a secret's, or ends in one (PGPASSWORD): TOKENIZERS_PARALLELISM only begins like one.
_SECRET_WORD: Final = re.compile(
    r"(?i)(?:token|secret|password|passwd|passphrase|credential|signature|(?:api|access|private)[-_.]?key)"
    r"s?\d*(?![a-z0-9])"
    # Short ones are whole words: a compass holds none, nor does a PUBLIC_KEY.
    r"|(?<![a-z0-9])(?:(?:pg)?pass|pwd|pat|auth|(?<!public[-_.])key)\d*(?![a-z0-9])"
)
# Where a shell is and was.
_FOLDERS: Final = frozenset({"PWD", "OLDPWD"})
# In a URL's query these carry a credential too: the signatures of CloudFront and Azure.
_QUERY_WORD: Final = re.compile(r"(?i)key\d*(?![a-z0-9])|^(?:policy|sig|auth)$")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_QUERY: Final = re.compile(r"(?<=[?&])([\w.-]+)=[^&#\s'\"]+")
# What a switch or a setting says, though its variable be called USE_AUTH_TOKEN or MAX_TOKENS.
_PLAIN: Final = re.compile(r"(?i)\s*(?:true|false|yes|no|on|off|none|null|[-+]?\d+(?:\.\d+)?)?\s*")
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
        text = _QUERY.sub(_hide_credential, text)
        text = _USERINFO.sub(rf"\1{_HIDDEN}@", text)
        text = _BEARER.sub(rf"\1{_HIDDEN}", text)
        return _HF_TOKEN.sub(_HIDDEN, text)


def _hide_credential(field: re.Match[str]) -> str:
    return f"{field[1]}={_HIDDEN}" if _carries_credential(field[1]) else field[0]


def _carries_credential(name: str) -> bool:
    """Whether the field ``name`` of a URL's query does."""
    return names_a_secret(name) or _QUERY_WORD.search(_HUMP.sub("_", name)) is not None


def names_a_secret(name: str) -> bool:
    """Whether ``name``, a variable's, is a secret's by one of its words."""
    return name not in _FOLDERS and _SECRET_WORD.search(_HUMP.sub("_", name)) is not None


def holds_userinfo(value: str) -> bool:
    """Whether ``value`` has a URL with a user in it, who comes with a password or is a token."""
    return _USERINFO.search(value) is not None


def secrets_in(environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """What the variables hold that are named like a secret, but for mere switches and numbers."""
    return tuple(
        Secret(value)
        for name, value in environ.items()
        if names_a_secret(name) and not _PLAIN.fullmatch(value)
    )


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
    name, _, value = field.partition("=")
    return bool(value) and _carries_credential(name)
