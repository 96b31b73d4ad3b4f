"""Measures the transfer engine against aria2, wget and curl: ``python -m tests.bench.transfer [--size-mib N]``.

A real nginx on loopback serves one file; the contenders take turns, memory is touched before each round, and the
median of each stands in the table, which is Markdown. Needs nginx, aria2, wget and curl (apt-get install nginx-light
aria2 wget curl); with MooseFS (see tests/testbed/moosefs.py) and root its volume is measured, too.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.testbed import moosefs as moosefs_bed
from tests.testbed.content import safetensors, sha256, write_to
from tests.testbed.moosefs import MooseFS
from tests.testbed.nginx import Nginx

MIB: Final = 1 << 20
CAP_BYTES_PER_S: Final = 40 * MIB
FIRST_BYTE_S: Final = 0.08
CONNECTIONS: Final = 16


@dataclass
class Figures:
    """What the rounds of one contender took."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_s)


@dataclass(frozen=True)
class Bench:
    """One file behind one nginx, and a folder for what arrives."""

    nginx: Nginx
    name: str
    size_bytes: int
    digest: str
    folder: Path

    def ours(self, url: str, volume: Path, *options: str) -> dict[str, float]:
        """One fill, measured from inside its process, whose start is not counted."""
        done = subprocess.run(
            self._fill(url, volume, *options), env=self._env, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        figures: dict[str, float] = json.loads(done.stdout)
        shutil.rmtree(volume / "model_cache")
        return figures

    def aria2(self, url: str, *, verified: bool) -> None:
        """As its users run it: 16 connections, 8 MiB each."""
        check = [f"--checksum=sha-256={self.digest}"] if verified else []
        quiet = ("-q", "--allow-overwrite=true", "--file-allocation=none", f"-d{self.folder}")
        trusted = f"--ca-certificate={self._certificate}"
        _run("aria2c", "-x16", "-s16", "-k8M", *quiet, trusted, *check, "-oaria2", url)
        (self.folder / "aria2").unlink()

    def wget(self, url: str) -> None:
        """wget, then sha256sum."""
        target = self.folder / "wget"
        _run("wget", "-q", f"--ca-certificate={self._certificate}", f"-O{target}", url)
        _run("sha256sum", str(target))
        target.unlink()

    def curl(self, url: str) -> None:
        """curl, then openssl dgst."""
        target = self.folder / "curl"
        _run("curl", "-s", "--cacert", str(self._certificate), f"-o{target}", url)
        _run("openssl", "dgst", "-sha256", str(target))
        target.unlink()

    def fetched_again_bytes(self, url: str, volume: Path) -> int:
        """What a fill that was killed in its middle and then repeated has fetched twice."""
        before = self.nginx.sent_bytes()
        with subprocess.Popen(self._fill(url, volume), env=self._env) as killed:
            parts = volume / ".morpheus" / "parts"
            while _blocks_bytes(parts) < self.size_bytes * 0.6:
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
        self.ours(url, volume)
        return self.nginx.sent_bytes() - before - self.size_bytes

    def _fill(self, url: str, volume: Path, *options: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "tests.bench.one_fill",
            str(volume),
            url,
            self.digest,
            *options,
        ]

    @property
    def _certificate(self) -> Path:
        return self.nginx.certificate.certificate

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "REQUESTS_CA_BUNDLE": str(self._certificate)}


Contender = Callable[[], dict[str, float] | None]


def take_turns(
    contenders: dict[str, Contender], rounds: int, touch_bytes: int
) -> dict[str, Figures]:
    """Runs all of them ``rounds`` times, one after another."""
    figures = {name: Figures() for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            # Freed pages are faulted in again on these machines: the first rows would suffer.
            bytearray(touch_bytes)[::4096] = bytes(-(-touch_bytes // 4096))
            began = time.monotonic()
            measured = run() or {"wall_s": time.monotonic() - began}
            figures[name].wall_s.append(measured["wall_s"])
            if "cpu_s" in measured:
                figures[name].cpu_s.append(measured["cpu_s"])
                figures[name].peak_mb.append(measured["peak_mb"])
        print(f"  load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return figures


def table(title: str, figures: dict[str, Figures], size_bytes: int) -> None:
    """Prints the medians."""
    print(
        f"\n### {title}\n\n| | wall, s | ours takes | CPU s a GB | peak, MB |\n|---|---|---|---|---|"
    )
    ours = figures["ours"].wall
    for name, each in figures.items():
        cpu = f"{statistics.median(each.cpu_s) / size_bytes * 1e9:.2f}" if each.cpu_s else ""
        peak = f"{max(each.peak_mb):.0f}" if each.peak_mb else ""
        ratio = f"{ours / each.wall:.2f} of it" if name != "ours" else ""
        print(f"| {name} | {each.wall:.2f} | {ratio} | {cpu} | {peak} |", flush=True)


def main() -> int:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wget-rounds", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", default=["capped", "http", "uncapped", "resume", "memory", "moosefs"]
    )
    options = parser.parse_args()
    with prepared(options.size_mib * MIB) as bench:
        for name in options.only:
            print(f"{name}...", file=sys.stderr, flush=True)
            globals()[name](bench, options)
    return 0


@contextlib.contextmanager
def prepared(size_bytes: int) -> Iterator[Bench]:
    """The file, its nginx, and a folder on this machine's disk."""
    content = safetensors(size_bytes)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder) / "root"
        write_to(content, root / "m")
        root.parent.chmod(0o755)
        target = Path(folder) / "target"
        target.mkdir()
        with Nginx(root, cap_bytes_per_s=CAP_BYTES_PER_S, first_byte_s=FIRST_BYTE_S) as nginx:
            yield Bench(nginx, "m", size_bytes, sha256(content), target)


def capped(bench: Bench, options: argparse.Namespace) -> None:
    """HTTPS, a cap for each connection, 80 ms to the first byte."""
    url = f"{bench.nginx.https}/late/{bench.name}"
    volume = bench.folder / "volume"
    figures = take_turns(
        {
            "ours": lambda: bench.ours(url, volume),
            "aria2c, verified": lambda: bench.aria2(url, verified=True),
            "aria2c, not verified": lambda: bench.aria2(url, verified=False),
        },
        options.rounds,
        2 * bench.size_bytes,
    )
    if options.wget_rounds:
        figures |= take_turns({"wget + sha256sum": lambda: bench.wget(url)}, options.wget_rounds, 0)
    table("HTTPS, 40 MiB/s a connection, 80 ms to the first byte", figures, bench.size_bytes)


def http(bench: Bench, options: argparse.Namespace) -> None:
    """HTTP with the same cap, against the floor that it sets."""
    url = f"{bench.nginx.http}/capped/{bench.name}"
    volume = bench.folder / "volume"
    figures = take_turns(
        {
            "ours": lambda: bench.ours(url, volume),
        },
        options.rounds,
        2 * bench.size_bytes,
    )
    figures["floor of 16 connections"] = Figures([bench.size_bytes / CONNECTIONS / CAP_BYTES_PER_S])
    table("HTTP, 40 MiB/s a connection", figures, bench.size_bytes)


def uncapped(bench: Bench, options: argparse.Namespace) -> None:
    """HTTPS without a cap."""
    url = f"{bench.nginx.https}/{bench.name}"
    volume = bench.folder / "volume"
    figures = take_turns(
        {
            "ours": lambda: bench.ours(url, volume),
            "curl + openssl dgst": lambda: bench.curl(url),
        },
        options.rounds,
        2 * bench.size_bytes,
    )
    table("HTTPS, no cap", figures, bench.size_bytes)


def resume(bench: Bench, _options: argparse.Namespace) -> None:
    """A fill killed at 60 % and repeated."""
    url = f"{bench.nginx.https}/late/{bench.name}"
    again_bytes = bench.fetched_again_bytes(url, bench.folder / "volume")
    print(
        f"\n### Resume after SIGKILL\n\n{again_bytes / MIB:.0f} MiB were fetched twice.", flush=True
    )


def memory(_bench: Bench, _options: argparse.Namespace) -> None:
    """The peak for one model and for 200, of 4 MiB each."""
    with prepared(4 * MIB) as small:
        url = f"{small.nginx.https}/{small.name}"
        one, many = (
            small.ours(url, small.folder / "volume", f"--models={n}")["peak_mb"] for n in (1, 200)
        )
    print(
        f"\n### Memory\n\nThe peak is {one:.0f} MB with one model, {many:.0f} MB with 200.",
        flush=True,
    )


def moosefs(bench: Bench, options: argparse.Namespace) -> None:
    """A real MooseFS as the volume, against dd with its fdatasync."""
    if (reason := moosefs_bed.reason_missing()) is not None:
        print(f"\nMooseFS: {reason}")
        return
    url = f"{bench.nginx.https}/late/{bench.name}"
    with MooseFS() as volume:

        def dd() -> None:
            target = volume.a / "dd"
            count = bench.size_bytes // MIB
            _run("dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={count}", "conv=fdatasync")
            target.unlink()

        figures = take_turns(
            {"ours": lambda: bench.ours(url, volume.a / "volume"), "dd conv=fdatasync": dd},
            options.rounds,
            2 * bench.size_bytes,
        )
    table("MooseFS as the volume, HTTPS as above", figures, bench.size_bytes)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _blocks_bytes(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(path.stat().st_blocks * 512 for path in folder.glob("*.part"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
