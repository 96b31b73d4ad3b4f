"""The attacks in their full form: too long for the suite, which has them scaled down.

    python -m tests.bench.soak_fileserver [--only NAME]

Each prints a line with what it did and how long it took; the first that fails ends it.
"""

import argparse
import hashlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import requests

from tests.fileserver.serving import MIB, FileServer, form, upload_head
from tests.wait import wait_until

MEMORY_BYTES: Final = 200_000_000


def many_small_uploads(folder: Path) -> str:
    """10,000 uploads at 64 at once, every one checked."""
    with FileServer(folder) as server:
        local = threading.local()

        def one(number: int) -> None:
            if not hasattr(local, "session"):
                local.session = requests.Session()
            content = hashlib.sha256(b"%d" % number).digest() * (number * 37 % 2000)
            answer = local.session.post(
                f"{server.url}/upload",
                files={"file": (f"{number}.bin", content)},
                data={"worker_job_id": f"j{number % 50}", "sub_dir": f"s{number % 7}"},
                timeout=120,
            )
            assert answer.status_code == 200, answer.text
            assert Path(answer.json()["pod_path"]).read_bytes() == content

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(one, range(10_000)))
        assert sum(1 for _ in (server.volume / "jobs").rglob("*.bin")) == 10_000
        settled(server)
        return f"10,000 uploads right, peak memory {server.peak_rss_bytes / 1e6:.0f} MB"


def slow_loris(folder: Path) -> str:
    """200 connections that trickle heads and bodies for a minute, while real clients go on."""
    with FileServer(folder) as server, ExitStack() as clients:
        server.output("j", "f", os.urandom(2 * MIB))
        body, headers = form(bytes(MIB))
        head = upload_head(len(body), headers)
        loris = [clients.enter_context(server.connect()) for _ in range(200)]
        for number, client in enumerate(loris):
            client.sendall(head[:30] if number % 2 else head + body[:100])
        taken_s = []
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for client in loris:
                try:
                    client.sendall(b"x")
                except OSError:
                    continue  # cut off, as it should be
            begun = time.monotonic()
            assert server.get("/download/j/f").status_code == 200
            assert server.upload(bytes(100_000), worker_job_id="real").status_code == 200
            taken_s.append(time.monotonic() - begun)
        settled(server)
        return f"{len(taken_s)} real pairs beside 200 loris, the slowest in {max(taken_s):.2f} s"


def kills_amid_uploads(folder: Path) -> str:
    """kill -9 in the middle of 50 uploads, 20 times: nothing torn, and the next start clears up."""
    content = os.urandom(3 * MIB)
    whole = left = 0
    for number in range(20):
        server = FileServer(folder)
        wait_until(partial(has_no_parts, server))
        with ThreadPoolExecutor(50) as pool:
            for name in range(50):
                pool.submit(try_to_upload, server, f"{number}-{name}.bin", content)
            # Each time at another moment: when a few more of them are whole.
            wait_until(partial(has_stored, server, number * 2))
            left += len(server.parts)
            server.kill()
        for path in server.input_of("j").glob("*"):
            assert path.read_bytes() == content, path
            whole += 1
            path.unlink()
    with FileServer(folder) as server:
        wait_until(partial(has_no_parts, server))
    return f"20 kills: {whole} uploads whole, none torn, {left} parts cleared away"


def has_no_parts(server: FileServer) -> bool:
    return server.parts == []


def has_stored(server: FileServer, count: int) -> bool:
    return len(list(server.input_of("j").glob("*"))) >= count and server.parts != []


def try_to_upload(server: FileServer, name: str, content: bytes) -> None:
    try:
        requests.post(
            f"{server.url}/upload",
            files={"file": (name, content)},
            data={"worker_job_id": "j"},
            timeout=60,
        )
    except requests.RequestException:
        return  # the server was killed


def health_under_load(folder: Path) -> str:
    """p99 of /health and memory, beside 32 downloads and 8 uploads for a minute."""
    with FileServer(folder) as server:
        server.output("j", "f", os.urandom(200 * MIB))
        (folder / "up").write_bytes(os.urandom(100 * MIB))
        loop = "while curl -sf {} -o /dev/null; do :; done"
        downloads = [loop.format(f"{server.url}/download/j/f")] * 32
        uploads = [loop.format(f"-F worker_job_id=u -F file=@{folder}/up {server.url}/upload")] * 8
        running = [
            subprocess.Popen(["bash", "-c", command], start_new_session=True)
            for command in downloads + uploads
        ]
        taken_ms = []
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                begun = time.monotonic()
                assert server.get("/health").status_code == 200
                taken_ms.append((time.monotonic() - begun) * 1000)
        finally:
            for process in running:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        settled(server)
        p99 = statistics.quantiles(taken_ms, n=100)[98]
        return f"p99 of /health {p99:.0f} ms, peak memory {server.peak_rss_bytes / 1e6:.0f} MB"


def settled(server: FileServer) -> None:
    """Nothing is left of it all: no part, no descriptor, no memory beyond the bar, no error in the log."""
    wait_until(lambda: server.parts == [], 60)
    wait_until(lambda: server.descriptors < 60, 60)
    assert server.peak_rss_bytes < MEMORY_BYTES, server.peak_rss_bytes
    assert "ERROR" not in server.log, server.log


ATTACKS: Final[dict[str, Callable[[Path], str]]] = {
    attack.__name__: attack
    for attack in (many_small_uploads, slow_loris, kills_amid_uploads, health_under_load)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=ATTACKS)
    only = parser.parse_args().only
    for name in [only] if only else ATTACKS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            told = ATTACKS[name](Path(folder))
        print(f"{name}: {told} ({time.monotonic() - begun:.0f} s)", file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
