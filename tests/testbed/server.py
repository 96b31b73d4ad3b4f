"""Real HTTP/1.1 over loopback: takes connections, parses requests, and sends what a reply says, to the byte."""

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Final, NoReturn
from urllib.parse import unquote

from tests.testbed.exchange import Framing, Reply, Request, Reset, Wait
from tests.testbed.ledger import Ledger

# Two addresses, so that a redirect can leave its host without any name resolution.
ADDRESSES: Final = ("127.0.0.1", "127.0.0.2")
_SEND_BUFFER_BYTES: Final = 256 * 1024
_BODYLESS: Final = frozenset({204, 304})

Respond = Callable[[Request], Reply]


class Server:
    """Answers on both ADDRESSES under one port until closed; a thread a connection."""

    def __init__(self, respond: Respond, ledger: Ledger, *, tls: ssl.SSLContext | None) -> None:
        self.respond = respond
        self.ledger = ledger
        self.closing = threading.Event()
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._workers: list[threading.Thread] = []
        self._listeners = _listen()
        self.port: int = self._listeners[0].getsockname()[1]
        self._acceptors = [_start(self._accept, listener) for listener in self._listeners]

    def close(self) -> None:
        """Ends every connection, and waits for all threads."""
        self.closing.set()
        with self._lock:
            for connection in (*self._listeners, *self._open):
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: that one takes away the encryption under a thread that sends.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._acceptors:
            thread.join()
        for thread in self._workers:
            thread.join()
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closing
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            with self._lock:
                self._workers = [worker for worker in self._workers if worker.is_alive()]
                self._workers.append(_start(self._serve, connection))

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
            with self._lock:
                if self.closing.is_set():
                    return
                self._open.add(connection)
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            _Handler(connection, connection.getpeername(), self)
        except OSError:
            pass  # the client left, refused our certificate, or we are closing
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


class _ClientGone(ConnectionError):
    """The client has closed its end, or the server is closing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "testbed"
    connection: socket.socket

    def __init__(self, connection: socket.socket, peer: tuple[str, int], server: Server) -> None:
        self._server = server
        super().__init__(connection, peer, server)  # type: ignore[arg-type]  # only stored by the base class

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request(
            self.command,
            unquote(path),
            query,
            {name.lower(): value for name, value in self.headers.items()},
            self.connection.getsockname()[0],
        )
        reply = self._server.respond(request)
        self._server.ledger.begin(request, reply)
        try:
            self._send(request, reply)
        finally:
            self._server.ledger.end()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _send(self, request: Request, reply: Reply) -> None:
        for event in reply.before:
            self._happen(event)
        bodyless = reply.status in _BODYLESS
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.framing is Framing.CHUNKED:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.framing is Framing.CLOSE:
            self.send_header("Connection", "close")
            self.close_connection = True
        elif not bodyless:
            self.send_header("Content-Length", str(reply.length_bytes))
        self.end_headers()
        if request.method != "HEAD" and not bodyless:
            self._send_body(request.path, reply)

    def _send_body(self, path: str, reply: Reply) -> None:
        body_bytes = 0
        pace = _Pace(reply.bytes_per_s)
        chunked = reply.framing is Framing.CHUNKED
        for piece in reply.body:
            if not isinstance(piece, memoryview):
                self._happen(piece)
                continue
            for part in pace.parts(piece):
                if chunked:
                    self.connection.sendall(b"%x\r\n" % len(part))
                self._send_all(path, part)
                if chunked:
                    self.connection.sendall(b"\r\n")
                body_bytes += len(part)
                if delay_s := pace.delay_s(len(part)):
                    self._happen(Wait(seconds=delay_s))
        if chunked:
            self.connection.sendall(b"0\r\n\r\n")
        if reply.framing is Framing.LENGTH and body_bytes != reply.length_bytes:
            self.close_connection = True

    def _send_all(self, path: str, view: memoryview) -> None:
        # Counted ahead: no client may have what does not stand in the ledger yet.
        self._server.ledger.sent(path, len(view))
        try:
            while view:
                view = view[self.connection.send(view) :]
        finally:
            self._server.ledger.sent(path, -len(view))

    def _happen(self, event: Wait | Reset) -> None:
        if isinstance(event, Reset):
            self._reset()
        deadline = None if event.seconds is None else time.monotonic() + event.seconds
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        while not (event.until is not None and event.until.is_set()):
            left_s = 0.01 if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                return
            if poll.poll(min(left_s, 0.01) * 1000) or self._server.closing.is_set():
                raise _ClientGone

    def _reset(self) -> NoReturn:
        # What lies in our send buffer would be lost with the RST: let the client have it first.
        deadline = time.monotonic() + 2
        while _unsent_bytes(self.connection) and time.monotonic() < deadline:
            self._happen(Wait(seconds=0.001))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        raise _ClientGone


class _Pace:
    """Keeps one connection at so many bytes a second (None: as fast as it goes)."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._due = time.monotonic()

    def parts(self, piece: memoryview) -> list[memoryview]:
        """``piece`` in parts of at most 20 ms each."""
        if self._bytes_per_s is None:
            return [piece]
        step = max(1, int(self._bytes_per_s * 0.02))
        return [piece[at : at + step] for at in range(0, len(piece), step)]

    def delay_s(self, sent_bytes: int) -> float:
        """How long to wait after sending so much. Time lost to waiting is not made up for in a burst."""
        if self._bytes_per_s is None:
            return 0.0
        now = time.monotonic()
        self._due = max(self._due, now - 0.05) + sent_bytes / self._bytes_per_s
        return self._due - now


def _start(work: Callable[[socket.socket], None], connection: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=work, args=(connection,), daemon=True)
    thread.start()
    return thread


def _listen() -> list[socket.socket]:
    for _ in range(20):
        first = socket.create_server((ADDRESSES[0], 0), backlog=1024)
        try:
            second = socket.create_server((ADDRESSES[1], first.getsockname()[1]), backlog=1024)
        except OSError:
            first.close()
            continue  # the port that the first address drew is taken on the second: draw again
        return [first, second]
    raise OSError(f"no port is free on all of {ADDRESSES}")


def _unsent_bytes(connection: socket.socket) -> int:
    raw = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", raw)[0])
