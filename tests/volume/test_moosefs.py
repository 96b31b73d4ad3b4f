"""Two hosts, one volume, on a real MooseFS: whatever dies, fills up or is cut off, the file is right."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from morpheus_boot.cache import make_plan
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.cache.part import read_journal
from morpheus_boot.errors import Exit
from morpheus_boot.layout import Layout
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import Generated, read_all, safetensors, write_to
from tests.testbed.exchange import Reply, Request
from tests.testbed.faults import Gate, NoLength
from tests.testbed.moosefs import MooseFS
from tests.testbed.origin import Origin
from tests.wait import wait_until

WEIGHTS = safetensors(8 * MIB)
PATH = "checkpoints/a.safetensors"
SYNC_BYTES = MIB
# Not a whole number of syncs: whoever is held here has written bytes that no journal names.
HELD_AT = 4 * MIB + MIB // 2
PATIENT = LockTimes(beat_s=0.1, silence_s=60.0, deadline_s=60.0, poll_s=0.02)
QUICK = replace(PATIENT, silence_s=1.0)


class Fill:
    """A worker that fills as a process of its own, on one of the two hosts."""

    def __init__(self, root: Path, name: str, told: dict[str, Any], folder: Path) -> None:
        self.root = root
        self._said = folder / f"{name}.out"
        with self._said.open("wb") as out, (folder / f"{name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.volume.fill_process"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
            )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(json.dumps({"root": str(root), "worker": name, **told}).encode())

    @property
    def said(self) -> list[dict[str, Any]]:
        """What it has printed so far."""
        lines = self._said.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def waits_for(self, holder: str) -> bool:
        return any(
            s.get("stage") == "waiting" and holder in s["detail"] for s in self.said
        )

    def ended(self, timeout_s: float = 20) -> tuple[int, str]:
        """Its exit code and its error, once it has ended."""
        code = self._process.wait(timeout_s)
        return code, self.said[-1]["error"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def send(self, signum: int) -> None:
        self._process.send_signal(signum)


Start = Callable[..., Fill]


@pytest.fixture
def folder(moosefs: MooseFS) -> str:
    """A volume of this test's own: a folder of MooseFS."""
    return moosefs.fresh()


@pytest.fixture
def start(moosefs: MooseFS, folder: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a fill of PATH (or of ``models``) on a host; what is left of them at the end is killed."""
    fills: list[Fill] = []

    def begin(
        host: str, name: str, *models: dict[str, Any], lock_times: LockTimes = PATIENT
    ) -> Fill:
        told = {"models": models, "lock_times": asdict(lock_times), "sync_bytes": SYNC_BYTES}
        root = {"a": moosefs.a, "b": moosefs.b}[host] / folder
        fills.append(Fill(root, name, told, tmp_path))
        return fills[-1]

    yield begin
    moosefs.restore("a")
    moosefs.restore("b")
    for one in fills:
        one.kill()


def part_of(root: Path) -> Path:
    (part,) = (Layout(root).parts).glob("*.part")
    return part


def holds(root: Path, size_bytes: int) -> Callable[[], bool]:
    """Whether the only journal on the volume names so many bytes."""

    def look() -> bool:
        parts = list(Layout(root).parts.glob("*.journal"))
        return any(sum(map(len, read_journal(p)[1])) >= size_bytes for p in parts)

    return look


def seen(path: Path) -> tuple[bytes, int, int]:
    """A published model as it must stay: bytes, inode, mtime."""
    stat = path.stat()
    return path.read_bytes(), stat.st_ino, stat.st_mtime_ns


def hold_first_download(origin: Origin, path: str) -> Gate:
    """Holds the first download of ``path``; the request before it, which resolves, goes through."""
    gate = Gate(HELD_AT)
    origin.misbehave(path, gate, after=1, times=1)
    return gate


def test_two_hosts_on_a_cold_cache_fetch_each_byte_once(
    moosefs: MooseFS, folder: str, start: Start, origin: Origin
) -> None:
    contents = {f"loras/{n}.safetensors": safetensors(2 * MIB, seed=n) for n in range(5)}
    models = [
        {"path": path, "url": origin.serve(f"/{path}", content)}
        for path, content in contents.items()
    ]
    gates = [Gate(MIB) for _ in models]
    fills = [start("a", "worker-a", *models), start("b", "worker-b", *models)]

    assert [fill.ended() for fill in fills] == [(0, ""), (0, "")]

    for path, content in contents.items():
        for root in (moosefs.a / folder, moosefs.b / folder):
            assert Layout(root).model(path).read_bytes() == read_all(content)
        assert origin.count(f"/{path}").body_bytes <= content.size_bytes + 2


def test_a_killed_holders_part_is_gone_on_with_at_once(
    moosefs: MooseFS, folder: str, start: Start, origin: Origin
) -> None:
    wanted = {"path": PATH, "url": origin.serve("/a", WEIGHTS)}
    gate = hold_first_download(origin, "/a")
    first = start("a", "worker-a", wanted)
    gate.wait_reached()
    wait_until(holds(first.root, 4 * MIB))
    second = start("b", "worker-b", wanted)
    wait_until(lambda: second.waits_for("worker-a"))
    inode = part_of(first.root).stat().st_ino

    first.kill()
    killed_at = time.monotonic()

    assert second.ended() == (0, "")
    print("took", time.monotonic() - killed_at)
    content, published_inode, _ = seen(Layout(second.root).model(PATH))
    assert content == read_all(WEIGHTS)
    assert published_inode == inode
    assert origin.count("/a").body_bytes <= WEIGHTS.size_bytes + SYNC_BYTES + 2


def test_a_holder_that_was_cut_off_finds_its_model_published_and_leaves_it_alone(
    moosefs: MooseFS, folder: str, start: Start, origin: Origin
) -> None:
    wanted = {"path": PATH, "url": origin.serve("/a", WEIGHTS)}
    gate = hold_first_download(origin, "/a")
    first = start("a", "worker-a", wanted, lock_times=QUICK)
    gate.wait_reached()
    wait_until(holds(first.root, 4 * MIB))
    inode = part_of(moosefs.b / folder).stat().st_ino
    second = start("b", "worker-b", wanted, lock_times=QUICK)
    wait_until(lambda: second.waits_for("worker-a"))

    moosefs.cut("a")

    assert second.ended() == (0, "")
    published = seen(Layout(second.root).model(PATH))
    assert published[0] == read_all(WEIGHTS)
    assert published[1] != inode
    print(origin.count("/a"))
    moosefs.restore("a")
    gate.open()
    assert first.ended() == (0, "")
    print(origin.count("/a"))
    assert seen(Layout(second.root).model(PATH)) == published
    assert Layout(first.root).model(PATH).read_bytes() == read_all(WEIGHTS)
    print(list(Layout(first.root).ours.rglob("*")))
