"""A real nginx on loopback for measurements: a cap for each connection, TLS, and a time to the first byte."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

from morpheus_boot.smoke.inner import free_ports
from tests.testbed.certificates import ServerCertificate
from tests.wait import wait_until

_CONF: Final = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  log_format sent '$body_bytes_sent'; access_log {folder}/sent.log sent;
  sendfile on; tcp_nopush on; keepalive_requests 100000; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream late {{ server 127.0.0.1:{late}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache shared:s:1m;
    location = /late {{ internal; proxy_pass http://late; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_pass_request_body off; }}
    location /late/ {{ auth_request /late; alias {root}/; limit_rate {cap}; }}
    location /capped/ {{ alias {root}/; limit_rate {cap}; }}
    location / {{ root {root}; }}
  }}
}}
"""


class Nginx:
    """Serves a folder: below ``/`` as fast as it goes, below ``/capped/`` so many bytes a second a connection,
    below ``/late/`` capped and with ``first_byte_s`` before each answer."""

    def __init__(self, root: Path, *, cap_bytes_per_s: int, first_byte_s: float) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nginx-"))
        self.certificate = ServerCertificate.below(self._folder / "certificate")
        self._late = _late_server(first_byte_s)
        http, https = free_ports(2)
        self.http, self.https = f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}"
        conf = self._folder / "nginx.conf"
        conf.write_text(
            _CONF.format(
                folder=self._folder,
                root=root,
                cap=cap_bytes_per_s,
                late=self._late.server_port,
                http=http,
                https=https,
                certificate=self.certificate.certificate,
                key=self.certificate.key,
            )
        )
        command = ["nginx", "-e", f"{self._folder}/error.log", "-c", str(conf)]
        if os.geteuid() == 0:
            command += ["-g", "user root;"]
        self._process = subprocess.Popen(command)
        wait_until(lambda: _listens(http))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._late.shutdown()
        shutil.rmtree(self._folder)

    def sent_bytes(self) -> int:
        """Bytes of bodies so far, of the requests that have ended."""
        return sum(map(int, (self._folder / "sent.log").read_text().split()))


def _late_server(seconds: float) -> ThreadingHTTPServer:
    class Late(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response_only(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
