"""Object storage behind presigned URLs, on another host than who signs them: S3's manners."""

import threading
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import parse_qs, quote

from tests.testbed.exchange import Reply, Request, Resource, plain
from tests.testbed.origin import Origin

_FIELD = "X-Amz-Signature"


@dataclass(slots=True)
class _Signature:
    path: str
    valid_requests: int | None
    used: int = 0


@dataclass(slots=True)
class SignedStorage:
    """Files of an origin below ``prefix``, under its other host, each for ``valid_requests`` (None: no end)."""

    origin: Origin
    prefix: str
    valid_requests: int | None = None
    _files: dict[str, Resource] = field(default_factory=dict)
    _signatures: dict[str, _Signature] = field(default_factory=dict)
    _serial: "count[int]" = field(default_factory=lambda: count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.origin.serve_below(self.prefix, self._answer)

    def put(self, name: str, resource: Resource) -> str:
        """Keeps a file; returns its path, which ``origin.misbehave`` and ``origin.count`` know it by."""
        with self._lock:
            self._files[self.prefix + name] = resource
        return self.prefix + name

    def sign(self, path: str) -> str:
        """A URL that may be asked for so many times, whatever the method."""
        signature = f"{next(self._serial):064x}"
        with self._lock:
            self._signatures[signature] = _Signature(path, self.valid_requests)
        return f"{self.origin.other_url}{quote(path)}?{_FIELD}={signature}"

    def _answer(self, request: Request) -> Reply | Resource | None:
        if "authorization" in request.headers:
            return _error(400, "InvalidArgument", "Only one auth mechanism allowed")
        given = parse_qs(request.query).get(_FIELD, [""])[0]
        with self._lock:
            signature = self._signatures.get(given)
            if signature is None or signature.path != request.path:
                return _error(403, "SignatureDoesNotMatch", "The signature does not match")
            valid = signature.valid_requests
            if valid is not None and signature.used >= valid:
                return _error(403, "AccessDenied", "Request has expired")
            signature.used += 1
            return self._files.get(request.path)


def _error(status: int, code: str, message: str) -> Reply:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return plain(status, body, content_type="application/xml")
