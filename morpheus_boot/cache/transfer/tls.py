"""One TLS context for all connections: to read the list of authorities for each costs 15 ms of CPU every time."""

import ssl
import threading
from pathlib import Path
from typing import Any

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context


class SharedContextAdapter(HTTPAdapter):
    """An adapter of requests that always verifies, against the bundle that requests would take."""

    def __init__(self, connections: int) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        super().__init__(pool_maxsize=connections)

    def build_connection_pool_key_attributes(
        self,
        request: PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - requests' own signature
        cert: Any = None,  # noqa: ANN401 - requests' own signature
    ) -> tuple[Any, Any]:
        """The pool's address, and our context in place of what would make one for each connection."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        tls = {}
        if host["scheme"] == "https":
            bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
            tls = {"ssl_context": self._context(bundle)}
        return host, tls

    def cert_verify(self, conn: Any, *_: object) -> None:  # noqa: ANN401 - a pool of urllib3's
        """Leaves all to the context."""
        conn.cert_reqs = "CERT_REQUIRED"

    def _context(self, bundle: str) -> ssl.SSLContext:
        with self._lock:
            if bundle not in self._contexts:
                context = create_urllib3_context()
                context.verify_mode = ssl.CERT_REQUIRED
                if Path(bundle).is_dir():
                    context.load_verify_locations(capath=bundle)
                else:
                    context.load_verify_locations(cafile=bundle)
                self._contexts[bundle] = context
            return self._contexts[bundle]
