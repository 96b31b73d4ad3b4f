"""The file server's speed beside nginx and FastAPI as it comes, and what two hundred stalled readers cost it.

    python -m tests.bench.fileserver [--rounds 5] [--seconds 3] [--size-mb 1000] [--folder DIR]

Prints a page of Markdown. All serve one folder from one disk to clients on the same machine; each round measures each
of them once, one right after the other, so that what else the machine does falls on all alike. What counts is the
median of the rounds' ratios. Needs nginx, wrk and curl.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests.fileserver.serving import FileServer, free_port
from tests.wait import wait_until

CONNECTIONS: Final = 32
UPLOAD_CONNECTIONS: Final = 16
HEALTH_PROBES: Final = 500
STALLED: Final = 200

NGINX: Final = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; client_max_body_size 0; types {{ }}
    client_body_temp_path {folder}/body; keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location /health {{ return 200; }}
        location ~ ^/download/([^/]+)/(.+)$ {{ alias {volume}/jobs/$1/output/$2; }}
        location /put/ {{ dav_methods PUT; create_full_put_path on; alias {volume}/put/; }}
    }}
}}
"""
# wrk keeps the body in memory and sends it over and over; each upload lands in a job of its own.
UPLOAD_LUA: Final = """
local file = string.rep("x", {size})
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=b0undary"
wrk.body = '--b0undary\\r\\nContent-Disposition: form-data; name="file"; filename="a.bin"\\r\\n' ..
    'Content-Type: application/octet-stream\\r\\n\\r\\n' .. file .. '\\r\\n--b0undary--\\r\\n'
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One of those that are compared."""

    name: str
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@dataclass(slots=True)
class Row:
    """One thing measured: for each server, a value a round."""

    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def ratio(self, name: str, other: str) -> float:
        """The median of what each round says: its two values were measured within seconds of each other."""
        pairs = zip(self.values[name], self.values[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--size-mb", type=int, default=1000, help="of the large file")
    parser.add_argument("--folder", type=Path, help="where the volume is made; a temporary one")
    given = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "curl") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)}: not installed; apt-get install nginx-light wrk curl")
    with (
        tempfile.TemporaryDirectory(dir=given.folder, prefix="bench-") as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        ours = stack.enter_context(FileServer(folder))
        servers = [Server("ours", ours.port), *started(folder, ours.volume, stack)]
        prepare(ours, given.size_mb * 10**6)
        rows = measure(servers, ours.volume, folder, given.rounds, f"{given.seconds}s")
        health_ms = health_under_load(ours, folder)
        peak_mb = ours.peak_rss_bytes / 1e6
        stalled_mb = stalled_readers(ours)
    print(report(rows, [server.name for server in servers]))
    print(f"\np99 of `/health` beside 32 downloads and 8 uploads: {health_ms:.1f} ms.")
    print(f"\nMemory of the process at its peak, through all of this: {peak_mb:.0f} MB.")
    print(f"\nMemory with {STALLED} stalled downloads of 1 GB: {stalled_mb:.0f} MB.")


def started(folder: Path, volume: Path, stack: ExitStack) -> Iterator[Server]:
    """Starts the others over ``volume``."""
    ports = {name: free_port() for name in ("nginx", "FastAPI as it comes")}
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, volume=volume, port=ports["nginx"])
    )
    uvicorn = [sys.executable, "-m", "uvicorn", "tests.bench.naive_fastapi:app"]
    uvicorn += ["--no-access-log", "--log-level", "warning", "--port"]
    commands = {
        "nginx": ["nginx", "-c", str(folder / "nginx.conf")],
        "FastAPI as it comes": [*uvicorn, str(ports["FastAPI as it comes"])],
    }
    for name, command in commands.items():
        stack.enter_context(running(command, volume, folder / f"{name.split()[0]}.log"))
        server = Server(name, ports[name])
        wait_until(partial(answers, server), 30)
        yield server


@contextmanager
def running(command: list[str], volume: Path, log: Path) -> Iterator[None]:
    """A program as long as the block lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "MORPHEUS_VOLUME": str(volume)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def answers(server: Server) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return True
    except OSError:
        return False


def prepare(ours: FileServer, large_bytes: int) -> None:
    """The files that are downloaded, in the page cache."""
    content = os.urandom(10**7) * (large_bytes // 10**7 + 1)
    for name, size_bytes in (("large", large_bytes), ("2m", 2 * 10**6)):
        ours.output("bench", name, content[:size_bytes])


def measure(
    servers: list[Server], volume: Path, folder: Path, rounds: int, seconds: str
) -> list[Row]:
    """Every measurement with every server, ``rounds`` times, each round beginning with another one."""
    lua = folder / "upload.lua"
    lua.write_text(UPLOAD_LUA.format(size=500_000))
    source = volume / "jobs/bench/output/large"
    size_mb = source.stat().st_size / 1e6
    table: list[tuple[Row, Callable[[Server], float]]] = [
        (Row(f"{size_mb:.0f} MB download", "MB/s"), lambda s: size_mb / download_s(s)),
        (Row("2 MB files, 32 connections", "r/s"), lambda s: wrk(s, "2m", seconds)),
        (Row(f"{size_mb:.0f} MB upload", "s"), lambda s: upload_s(s, source)),
        (Row("500 KB uploads, 16 connections", "r/s"), lambda s: wrk_upload(s, lua, seconds)),
    ]
    for number in range(rounds):
        for row, measured in table:
            for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                if server.name == "nginx" and "uploads" in row.title:
                    continue  # it has no multipart upload
                row.values.setdefault(server.name, []).append(measured(server))
                clear(volume)
                print(f"{number + 1}/{rounds} {row.title}: {server.name}", file=sys.stderr)
    return [row for row, _ in table]


def clear(volume: Path) -> None:
    """Empties what was uploaded, and waits for the disk: the next one must not pay for it.

    Nothing is removed: for minutes ext4 looks at each removed inode again whenever it makes a new one.
    """
    for folder in (volume / "jobs", volume / "put"):
        for file in folder.rglob("*"):
            if file.is_file() and "bench" not in file.parts:
                os.truncate(file, 0)
    os.sync()


def download_s(server: Server) -> float:
    return curl(server.url("/download/bench/large"), "-o", "/dev/null")


def upload_s(server: Server, source: Path) -> float:
    if server.name == "nginx":
        return curl(server.url("/put/1g"), "-T", str(source), "-o", "/dev/null")
    return curl(server.url("/upload"), "-F", f"file=@{source}", "-o", "/dev/null")


def curl(url: str, *options: str) -> float:
    """The seconds that one request took."""
    told = ["--silent", "--show-error", "--fail", "--write-out", "%{time_total}"]
    done = subprocess.run(
        ["curl", *told, *options, url], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def wrk(server: Server, name: str, seconds: str) -> float:
    return wrk_run(server.url(f"/download/bench/{name}"), CONNECTIONS, seconds)


def wrk_upload(server: Server, lua: Path, seconds: str) -> float:
    return wrk_run(server.url("/upload"), UPLOAD_CONNECTIONS, seconds, "-s", str(lua))


def wrk_run(url: str, connections: int, seconds: str, *options: str) -> float:
    """Requests a second. Anything but a 2xx is a failure of the benchmark."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", *options, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said:
        sys.exit(f"{' '.join(command)}:\n{said}")
    return float(rate[1])


def health_under_load(ours: FileServer, folder: Path) -> float:
    """The 99th percentile of /health in ms, while 32 downloads and 8 uploads of 100 MB run."""
    (folder / "100m").write_bytes(bytes(10**8))
    stop = threading.Event()

    def upload() -> None:
        while not stop.is_set():
            upload_s(Server("ours", ours.port), folder / "100m")

    uploaders = [threading.Thread(target=upload) for _ in range(8)]
    load = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d120s", f"{ours.url}/download/bench/2m"]
    downloads = subprocess.Popen(load, stdout=subprocess.DEVNULL)
    taken_ms = []
    try:
        for thread in uploaders:
            thread.start()
        with ours.connect() as client:
            for _ in range(HEALTH_PROBES):
                begun = time.monotonic()
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                while not client.recv(4096).endswith(b"}"):
                    pass
                taken_ms.append((time.monotonic() - begun) * 1000)
                time.sleep(0.01)
    finally:
        stop.set()
        downloads.terminate()
        downloads.wait()
        for thread in uploaders:
            thread.join()
    return statistics.quantiles(taken_ms, n=100)[98]


def stalled_readers(ours: FileServer) -> float:
    """MB that the process has at its peak with so many downloads of 1 GB that nobody reads."""
    os.truncate(ours.output("bench", "stalled", b""), 10**9)
    request = b"GET /download/bench/stalled HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as clients:
        for _ in range(STALLED):
            clients.enter_context(ours.connect()).sendall(request)
        wait_until(lambda: ours.descriptors > 2 * STALLED, 30)
        ours.get("/health")
    return ours.peak_rss_bytes / 1e6


def report(rows: list[Row], names: list[str]) -> str:
    """The table: each server's median, and our ratios to nginx and to FastAPI as it comes."""
    lines = [
        f"| | {' | '.join(names)} | ours to nginx | ours to FastAPI |",
        f"|---|{'---|' * (len(names) + 2)}",
    ]
    for row in rows:
        cells = [f"{row.median(name):,.4g}" if name in row.values else "-" for name in names]
        ratios = [
            f"{row.ratio('ours', other):.2f}" if other in row.values else "-"
            for other in ("nginx", "FastAPI as it comes")
        ]
        lines.append(f"| {row.title}, {row.unit} | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
