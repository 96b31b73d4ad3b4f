"""A fleet on one volume: what it asks of the origin, how soon all are ready, and what a warm worker costs.

    python -m tests.bench.fleet [--moosefs]

Prints a page of Markdown, first for a folder of the local disk, then for a real MooseFS, whose workers are shared
out between two hosts. Every worker is a process of its own with a ComfyUI of its own, all of one endpoint. Ends
with 1 where a bar is missed. Takes about two minutes on two cores.

Cold: all begin at once, and the origin caps each connection. Warm: the fleet grows, all of it stays and beats; one
worker after the other plans and links by itself, since on two cores a hundred at once would measure the cores. One
more is watched by strace: what it asks of the volume.
"""

import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.fleet_worker import MARK, Worker
from tests.testbed.content import read_all, safetensors, write_to
from tests.testbed.moosefs import MooseFS, reason_missing
from tests.testbed.nginx import Nginx

MODELS: Final = 20
# Two ranges each; 3 MiB/s a connection, so that two cores carry what ten workers receive.
MODEL_BYTES: Final = 16 * 1024 * 1024
CAP_BYTES_PER_S: Final = 3 * 1024 * 1024
COLD: Final = (1, 2, 5, 10)
WARM: Final = (1, 10, 50, 100)
# At least so many single measurements make a median; on MooseFS at most so many, since each waits for caches.
SAMPLES: Final = 20
BEGINNINGS: Final = 5
# What MooseFS and the kernel keep of a file's attributes: a new worker's host would know none of them.
CACHES_S: Final = 1.1
PHASES: Final = ("announce", "plan", "links")

MOST_ORIGIN_RATIO: Final = 1.02
MOST_OWN_MS: Final = 50.0
# A median that differs by less than this between two fleets has not grown.
NOISE_MS: Final = 5.0


# The bench: volumes, fleets, figures


@dataclass(frozen=True, slots=True)
class Bench:
    """One kind of volume: the mounts that its hosts have, and a local folder for what is theirs alone."""

    mounts: tuple[Path, ...]
    local: Path
    pause_s: float = 0.0

    def volume(self, name: str) -> tuple[Path, ...]:
        """A new volume as each host sees it."""
        (self.mounts[0] / name).mkdir()
        return tuple(mount / name for mount in self.mounts)

    def write_manifest(self, url: str) -> None:
        models = "".join(
            f"  - {{path: checkpoints/{n}.safetensors, url: '{url}/{n}.safetensors'}}\n"
            for n in range(MODELS)
        )
        self.local.mkdir(exist_ok=True)
        (self.local / "models.yaml").write_text(f"version: 1\nmodels:\n{models}")

    def start(self, volume: Sequence[Path], name: str, *, trace: Path | None = None) -> Worker:
        """A worker on one of the hosts, which begins to import."""
        number = int(re.sub(r"\D", "", name) or 0)
        return Worker(volume[number % len(volume)], self.local / name, trace=trace)


@dataclass(frozen=True, slots=True)
class Cold:
    """How a cold fleet filled: what the origin sent to what the models have, and seconds until all were ready."""

    workers: int
    origin_ratio: float
    seconds: float


def measure_cold(bench: Bench, origin: Nginx, volume: Sequence[Path], workers: int) -> Cold:
    """Lets so many workers begin at once on a volume that has nothing."""
    before = origin.sent_bytes()
    with ExitStack() as stack:
        fleet = [
            stack.enter_context(bench.start(volume, f"cold-{workers}-{n}")) for n in range(workers)
        ]
        for worker in fleet:
            worker.answer()
        began = time.perf_counter()
        for worker in fleet:
            worker.tell("cold")
        for worker in fleet:
            worker.answer()
        seconds = time.perf_counter() - began
    require_right(volume)
    return Cold(workers, (origin.sent_bytes() - before) / (MODELS * MODEL_BYTES), seconds)


def require_right(volume: Iterable[Path]) -> None:
    """Raises where a host does not see every model whole."""
    right = read_all(safetensors(MODEL_BYTES))
    for root in volume:
        for n in range(MODELS):
            path = root / "model_cache" / "checkpoints" / f"{n}.safetensors"
            if path.read_bytes() != right:
                raise RuntimeError(f"{path} is wrong")


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a warm worker spends before it plans, in milliseconds: our imports; models.yaml and the settings."""

    imports_ms: float
    read_ms: float


@dataclass(frozen=True, slots=True)
class Warm:
    """What one warm worker costs in a fleet of ``workers``: milliseconds, and calls that reach the volume.

    ``all_s``: until all were ready that began at once, on this machine's cores.
    """

    workers: int
    plan_ms: float
    links_ms: float
    all_s: float
    calls: Counter[str] | None

    @property
    def own_ms(self) -> float:
        return self.plan_ms + self.links_ms


def measure_warm(bench: Bench, volume: Sequence[Path]) -> Iterator[Warm]:
    """Lets a fleet grow on a volume that has everything."""
    with ExitStack() as stack:
        fleet: list[Worker] = []
        for workers in WARM:
            new = [
                stack.enter_context(bench.start(volume, f"warm-{n}"))
                for n in range(len(fleet), workers)
            ]
            for worker in new:
                worker.answer()
            fleet += new
            all_s = all_at_once(fleet)
            own = [one_by_itself(bench, worker) for worker in sample(bench, fleet)]
            yield Warm(
                workers,
                plan_ms=median(own, "plan_ms"),
                links_ms=median(own, "links_ms"),
                all_s=all_s,
                calls=count_calls(bench, volume, f"watched-{workers}"),
            )


def measure_beginnings(bench: Bench, volume: Sequence[Path]) -> Beginning:
    """Lets a few workers begin one after the other."""
    begun = []
    for n in range(BEGINNINGS):
        with bench.start(volume, f"begun-{n}") as worker:
            begun.append(worker.answer())
    return Beginning(median(begun, "imports_ms"), median(begun, "read_ms"))


def sample(bench: Bench, fleet: Sequence[Worker]) -> list[Worker]:
    rounds = -(-SAMPLES // len(fleet))
    measured = [*fleet] * rounds
    step = max(1, len(measured) // SAMPLES) if bench.pause_s else 1
    return measured[::step]


def all_at_once(fleet: Sequence[Worker]) -> float:
    began = time.perf_counter()
    for worker in fleet:
        worker.tell("warm")
    for worker in fleet:
        worker.answer()
    return time.perf_counter() - began


def one_by_itself(bench: Bench, worker: Worker) -> dict[str, float]:
    time.sleep(bench.pause_s)
    worker.tell("warm")
    return worker.answer()


def median(figures: Iterable[dict[str, float]], name: str) -> float:
    return statistics.median(f[name] for f in figures)


def count_calls(bench: Bench, volume: Sequence[Path], name: str) -> Counter[str] | None:
    """The calls of one more worker that reach the volume, by phase; None without strace."""
    if shutil.which("strace") is None:
        return None
    trace = bench.local / f"{name}.strace"
    with bench.start(volume, name, trace=trace) as worker:
        worker.answer()
        worker.tell("warm")
        worker.answer()
    calls: Counter[str] = Counter()
    current = ""
    for line in trace.read_text(errors="replace").splitlines():
        mark = re.search(rf'"{MARK}(\w+)"', line)
        if mark is not None:
            current = mark[1]
        elif current in PHASES and reaches(line, volume):
            calls[current] += 1
    return calls


def reaches(line: str, volume: Iterable[Path]) -> bool:
    """Whether a line of strace is a call on a path or descriptor of the volume, not one that only names it."""
    call = line.partition(" ")[2].lstrip()
    if call.startswith("<..."):
        return False  # the second half of a call
    arguments = call.rpartition(") = ")[0] or call
    if call.startswith(("readlink", "symlink")):
        # What a link holds or shall hold is text: readlink(LINK, TEXT), symlink(TEXT, LINK).
        quoted = re.findall(r'"([^"]*)"', arguments)
        arguments = quoted[0 if call.startswith("readlink") else -1] if quoted else ""
    return any(f"{root}" in arguments for root in volume)


# The page


def report(
    kind: str, colds: Sequence[Cold], warms: Sequence[Warm], beginning: Beginning
) -> list[str]:
    """The tables of one kind of volume."""
    alone_s = colds[0].seconds
    models = f"{MODELS} models of {MODEL_BYTES / 1e6:.1f} MB, {CAP_BYTES_PER_S / 1e6:.1f} MB/s a connection"
    begin = f"imports {beginning.imports_ms:.0f} ms, models.yaml and settings {beginning.read_ms:.0f} ms"
    return [
        f"## {kind}",
        "",
        f"{models}: one cold worker alone takes {alone_s:.1f} s.",
        "",
        "| cold workers | bytes sent to bytes of the models | time to all ready to one alone |",
        "|---|---|---|",
        *(f"| {c.workers} | {c.origin_ratio:.4f} | {c.seconds / alone_s:.2f} |" for c in colds),
        "",
        f"Before it plans, a warm worker spends: {begin}.",
        "",
        "| warm workers | plan ms | links ms | both ms | calls on the volume | all at once s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {w.workers} | {w.plan_ms:.1f} | {w.links_ms:.1f} | {w.own_ms:.1f} "
            f"| {calls_text(w)} | {w.all_s:.2f} |"
            for w in warms
        ),
        "",
    ]


def calls_text(warm: Warm) -> str:
    if warm.calls is None:
        return "-"
    each = ", ".join(f"{name} {warm.calls[name]}" for name in PHASES)
    return f"{warm.calls.total()} ({each})"


def missed(kind: str, colds: Sequence[Cold], warms: Sequence[Warm]) -> list[str]:
    """The bars that were not met, as sentences."""
    alone_s = colds[0].seconds
    found = [
        f"{kind}: {c.workers} cold workers made the origin send {c.origin_ratio:.4f} of the models"
        for c in colds
        if c.origin_ratio > MOST_ORIGIN_RATIO
    ]
    found += [
        f"{kind}: {c.workers} cold workers were ready after {c.seconds:.1f} s, one alone after {alone_s:.1f} s"
        for c in colds
        if c.seconds > alone_s
    ]
    found += [
        f"{kind}: a warm worker among {w.workers} took {w.own_ms:.1f} ms"
        for w in warms
        if w.own_ms >= MOST_OWN_MS
    ]
    if warms[-1].own_ms > warms[0].own_ms + NOISE_MS:
        found.append(f"{kind}: a warm worker's own time grows with the fleet")
    if warms[0].calls != warms[-1].calls:
        found.append(f"{kind}: a warm worker's calls grow with the fleet")
    return found


def measure(kind: str, bench: Bench) -> list[str]:
    """Measures one kind of volume and prints its tables; returns the bars that were missed."""
    root = bench.local.with_name("served")
    for n in range(MODELS):
        write_to(safetensors(MODEL_BYTES), root / f"{n}.safetensors")
    with Nginx(root, cap_bytes_per_s=CAP_BYTES_PER_S, first_byte_s=0.0) as origin:
        bench.write_manifest(f"{origin.http}/capped")
        colds = []
        for workers in COLD:
            volume = bench.volume(f"cold-{workers}")
            colds.append(measure_cold(bench, origin, volume, workers))
            if workers != COLD[-1]:
                shutil.rmtree(volume[0])
        before = origin.sent_bytes()
        beginning = measure_beginnings(bench, volume)
        warms = list(measure_warm(bench, volume))
        if origin.sent_bytes() != before:
            raise RuntimeError("a warm worker asked the origin")
    print("\n".join(report(kind, colds, warms, beginning)), flush=True)
    return missed(kind, colds, warms)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moosefs", action="store_true", help="on a real MooseFS, too")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as name:
        local = Path(name)
        (local / "volumes").mkdir()
        bars = measure("A folder of the local disk", Bench((local / "volumes",), local / "disk"))
        if options.moosefs:
            if (reason := reason_missing()) is not None:
                parser.error(reason)
            with MooseFS() as moosefs:
                mounts = (moosefs.a, moosefs.b)
                bars += measure("MooseFS, two hosts", Bench(mounts, local / "moosefs", CACHES_S))
    print("\n".join(f"MISSED: {bar}" for bar in bars) or "Every bar is met.")
    print(f"(measured in {time.perf_counter() - began:.0f} s)")
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main())
