"""An origin of models on loopback: serves files well, or badly on command, and counts what it sends.

``with Origin() as origin: url = origin.serve("/m.safetensors", safetensors(1_000_000))``.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

from tests.testbed.certificates import ServerCertificate
from tests.testbed.content import Content
from tests.testbed.exchange import Reply, Request, Resource, plain, resource_of
from tests.testbed.faults import Fault
from tests.testbed.ledger import Count, Ledger, Seen
from tests.testbed.server import ADDRESSES, Server

# Answers for all paths below a prefix: with a reply, with a file to be served well, or not at all (404).
Route = Callable[[Request], Reply | Resource | None]


@dataclass(frozen=True, slots=True)
class _Rule:
    path: str
    faults: tuple[Fault, ...]
    methods: Collection[str]
    after: int
    times: int | None
    matched: list[int] = field(default_factory=lambda: [0])

    def takes(self, request: Request) -> bool:
        """Whether it applies to this request, which it counts if it matches."""
        below = self.path.endswith("/") and request.path.startswith(self.path)
        if request.method not in self.methods or not (below or request.path == self.path):
            return False
        nth = self.matched[0]
        self.matched[0] += 1
        return nth >= self.after and (self.times is None or nth < self.after + self.times)


class Origin:
    """Files under URLs. Well-behaved until told otherwise; listens from construction to close()."""

    def __init__(self, *, tls: ServerCertificate | None = None) -> None:
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._routes: dict[str, Route] = {}
        self._rules: list[_Rule] = []
        self.ledger = Ledger()
        self._scheme = "http" if tls is None else "https"
        self._server = Server(self._respond, self.ledger, tls=tls.context() if tls else None)
        self.port = self._server.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections; afterwards the port refuses."""
        self._server.close()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"{self._scheme}://{ADDRESSES[0]}:{self.port}"

    @property
    def other_url(self) -> str:
        """The same under another host: what a redirect to a stranger leads to."""
        return f"{self._scheme}://{ADDRESSES[1]}:{self.port}"

    def serve(self, path: str, content: Content | bytes | Resource) -> str:
        """Serves ``content`` at ``path`` from now on, in place of what was there; returns its URL."""
        resource = content if isinstance(content, Resource) else resource_of(content)
        with self._lock:
            self._resources[path] = resource
        return self.url + quote(path)

    def serve_below(self, prefix: str, route: Route) -> None:
        """Lets ``route`` answer for every path that begins with ``prefix``; the longest prefix wins."""
        with self._lock:
            self._routes[prefix] = route

    def misbehave(
        self,
        path: str,
        *faults: Fault,
        after: int = 0,
        times: int | None = None,
        methods: Collection[str] = ("GET", "HEAD"),
    ) -> None:
        """Applies ``faults`` to the requests for ``path`` (all below it, if it ends in /).

        The first ``after`` matching requests are spared, and those beyond the next ``times``.
        """
        with self._lock:
            self._rules.append(_Rule(path, faults, methods, after, times))

    def behave(self) -> None:
        """Forgets every fault."""
        with self._lock:
            self._rules.clear()

    def seen(self, path: str | None = None, *, method: str | None = None) -> tuple[Seen, ...]:
        """The requests so far, in order; those of one path or method alone."""
        return self.ledger.seen(path, method)

    def count(self, path: str | None = None) -> Count:
        """Requests and body bytes so far, of one path or of all."""
        return self.ledger.count(path)

    def _respond(self, request: Request) -> Reply:
        with self._lock:
            faults = [fault for rule in self._rules if rule.takes(request) for fault in rule.faults]
        taken = request
        for fault in faults:
            taken = fault.request(taken)
        found = self._find(taken)
        if isinstance(found, Resource):
            for fault in faults:
                found = fault.resource(found)
            found = found.reply(taken)
        for fault in faults:
            found = fault.reply(taken, found)
        return found

    def _find(self, request: Request) -> Resource | Reply:
        with self._lock:
            resource = self._resources.get(request.path)
            prefixes = [p for p in self._routes if request.path.startswith(p)]
            route = self._routes[max(prefixes, key=len)] if prefixes else None
        if resource is None and route is not None:
            found = route(request)
            return plain(404, "not found\n") if found is None else found
        return plain(404, "not found\n") if resource is None else resource
