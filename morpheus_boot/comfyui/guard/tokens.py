"""The token at ComfyUI's door, known here by its digest alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

COOKIE = "morpheus_token"
_COOKIE_BYTES = COOKIE.encode()


class Door:
    """Opens for whoever has the token."""

    def __init__(self, digest: bytes) -> None:
        """``digest``: the SHA-256 of the token as UTF-8."""
        self._digest = digest

    def opens_to(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether one of a request's ``headers`` carries the token."""
        return any(self.is_right(given) for given in _given(headers))

    def is_right(self, given: bytes) -> bool:
        """Whether ``given`` is the token, in constant time."""
        # What is not ASCII comes as UTF-8 or, by HTTP's old rule, as Latin-1: as the file server takes it.
        forms = (given, given.decode("latin-1").encode())
        digests = (hashlib.sha256(form).digest() for form in forms)
        return sum(hmac.compare_digest(digest, self._digest) for digest in digests) > 0


def _given(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        field = name.lower()
        if field == b"authorization":
            scheme, _, given = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield given.strip()
        elif field == b"x-morpheus-token":
            yield value.strip()
        elif field == b"cookie":
            for pair in value.split(b";"):
                key, _, given = pair.strip().partition(b"=")
                if key == _COOKIE_BYTES:
                    # The file server's cookie, too: a host's ports share it, so both hold the token, quoted.
                    yield unquote_to_bytes(given)
