"""An origin of models on loopback: serves files well, or badly on command, and counts what it sends.

In a test: ``with Origin() as origin: url = origin.serve("/m.safetensors", safetensors(1_000_000))``.
In a process of its own: ``python -m tests.testbed.origin --root DIR --port N [--cap BYTES_PER_S]``.
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.testbed.certificates import ServerCertificate
from tests.testbed.content import Content, OnDisk, safetensors
from tests.testbed.exchange import Reply, Request, Resource, Wait, plain, resource_of
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

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ServerCertificate | None = None,
        cap_bytes_per_s: float | None = None,
        first_byte_s: float = 0.0,
    ) -> None:
        """``cap_bytes_per_s`` holds for each connection; ``first_byte_s`` goes by before each answer."""
        self._cap_bytes_per_s = cap_bytes_per_s
        self._first_byte_s = first_byte_s
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._routes: dict[str, Route] = {}
        self._rules: list[_Rule] = []
        self.ledger = Ledger()
        self._scheme = "http" if tls is None else "https"
        self._server = Server(
            self._respond, self.ledger, port=port, tls=tls.context() if tls else None
        )
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
        reply = replace(found, bytes_per_s=self._cap_bytes_per_s)
        if self._first_byte_s:
            reply = replace(reply, before=(Wait(seconds=self._first_byte_s),))
        for fault in faults:
            reply = fault.reply(taken, reply)
        return reply

    def _find(self, request: Request) -> Resource | Reply:
        with self._lock:
            resource = self._resources.get(request.path)
            prefixes = [p for p in self._routes if request.path.startswith(p)]
            route = self._routes[max(prefixes, key=len)] if prefixes else None
        if resource is None and route is not None:
            found = route(request)
            return plain(404, "not found\n") if found is None else found
        return plain(404, "not found\n") if resource is None else resource


def files_below(root: Path, request: Request) -> Resource | None:
    """A route that serves the files of a folder."""
    path = (root / request.path.lstrip("/")).resolve()
    inside = path.is_relative_to(root.resolve()) and path.is_file()
    return resource_of(OnDisk(path)) if inside else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT: prints ``{"port", "url"}``, then its counters, each as a line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--root", type=Path, help="serve the files of this folder")
    parser.add_argument(
        "--generate",
        action="append",
        default=[],
        metavar="PATH=BYTES",
        help="serve a generated .safetensors file at PATH",
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cap", type=float, metavar="BYTES_PER_S", help="cap of a connection")
    parser.add_argument("--first-byte", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tls", type=ServerCertificate.below, metavar="DIR")
    options = parser.parse_args(arguments)
    # Blocked before any thread starts, so that sigwait alone receives them.
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    with Origin(
        port=options.port,
        tls=options.tls,
        cap_bytes_per_s=options.cap,
        first_byte_s=options.first_byte,
    ) as origin:
        origin.serve_below("/counters", lambda _: plain(200, json.dumps(origin.ledger.document())))
        if options.root is not None:
            origin.serve_below("/", partial(files_below, options.root))
        for each in options.generate:
            path, _, size = each.rpartition("=")
            origin.serve(path, safetensors(int(size)))
        print(json.dumps({"port": origin.port, "url": origin.url}), flush=True)
        signal.sigwait(stops)
        print(json.dumps(origin.ledger.document()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
