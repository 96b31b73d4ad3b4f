"""Two hosts, one volume, on a real MooseFS: whatever dies, fills up or is cut off, the file is right."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from morpheus_boot.cache import fill
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout
from tests.cache.fill_process import FillProcess, journalled_bytes
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import read_all, safetensors, torch_pickle, write_to
from tests.testbed.exchange import Reply, Request
from tests.testbed.faults import Gate, IgnoresRange, NoLength
from tests.testbed.moosefs import Host, MooseFS
from tests.testbed.origin import Origin
from tests.wait import wait_until

WEIGHTS: Final = safetensors(8 * MIB)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"
# Not a whole number of syncs: whoever is held there has written bytes that no journal names.
HELD_AT: Final = 4 * MIB + MIB // 2
JOURNALLED: Final = 4 * MIB
CHUNK_BYTES: Final = 64 * MIB  # MooseFS's
# Longer than any test lasts: whoever goes on sooner was not waiting for a silence.
NEVER_S: Final = 60.0
# For what takes a second or two where nothing else runs.
PATIENCE_S: Final = 30.0
RESOLVED: Final = "bytes=0-0"


@dataclass(frozen=True, slots=True)
class HeldDownload(Gate):
    """Holds downloads; the requests that ask for a model's size go through."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        resolves = request.headers.get("range") == RESOLVED
        return reply if resolves else Gate.reply(self, request, reply)


class Fill:
    """A worker that fills as a process of its own."""

    def __init__(self, root: Path, process: subprocess.Popen[str]) -> None:
        self.layout = Layout(root)
        self.process = process
        self.states: list[dict[str, Any]] = []
        self._errors = ""
        # Its pipes hold 64 KiB, and whoever waits says so at every look.
        self._readers = [threading.Thread(target=r) for r in (self._read_states, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_states(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.states.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            self._errors = errors.read()

    @property
    def published(self) -> tuple[bytes, int, int]:
        """The model as its host sees it: bytes, inode, mtime."""
        path = self.layout.model(PATH)
        stat = path.stat()
        return path.read_bytes(), stat.st_ino, stat.st_mtime_ns

    @property
    def fetched_bytes(self) -> int:
        return max(int(s["done_bytes"]) for s in self.states if s["stage"] == "fetching")

    def waits_for(self, holder: str) -> bool:
        return any(s["stage"] == "waiting" and holder in s["detail"] for s in self.states)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it wrote to stderr, once it has ended."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return code, self._errors

    def end_well(self) -> None:
        code, errors = self.end()
        assert code == 0, errors

    def kill(self) -> None:
        self.process.kill()
        self.end()


class Bed:
    """One volume of two hosts and an origin, for one test."""

    def __init__(self, moosefs: MooseFS, origin: Origin) -> None:
        self.moosefs = moosefs
        self.origin = origin
        self.name = moosefs.fresh()
        self.wanted = model(PATH, origin.serve("/a", WEIGHTS))
        self._fills: list[Fill] = []

    def root(self, host: Host) -> Path:
        return (self.moosefs.a if host == "a" else self.moosefs.b) / self.name

    def start(
        self,
        host: Host,
        *models: ModelSpec,
        silence_s: float = NEVER_S,
        sync_bytes: int = MIB,
    ) -> Fill:
        """Starts a fill of ``models`` (of PATH alone, where none is given) by worker-<host>."""
        wanted = models or (self.wanted,)
        command = FillProcess(
            self.root(host),
            wanted,
            silence_s=silence_s,
            sync_bytes=sync_bytes,
            chunk_bytes=CHUNK_BYTES,
        )
        self._fills.append(Fill(self.root(host), command.start(f"worker-{host}")))
        return self._fills[-1]

    def start_held(
        self, host: Host, *, at: int = HELD_AT, synced: int = JOURNALLED, sync_bytes: int = MIB
    ) -> tuple[Fill, Gate]:
        """Starts a fill that is held at byte ``at``, with the bytes up to ``synced`` in its journal."""
        gate = Gate(at)
        # The request before the download asks for the size.
        self.origin.misbehave("/a", gate, after=1, times=1)
        held = self.start(host, silence_s=1, sync_bytes=sync_bytes)
        gate.wait_reached(PATIENCE_S)
        wait_until(lambda: journalled_bytes(held.layout) >= synced, PATIENCE_S)
        return held, gate

    def downloads(self) -> list[str]:
        """The paths that were asked for more than their size, in order."""
        return [s.path for s in self.origin.seen() if s.headers.get("range") != RESOLVED]

    def end(self) -> None:
        self.moosefs.restore("a")
        self.moosefs.restore("b")
        for one in self._fills:
            one.kill()


@pytest.fixture
def bed(moosefs: MooseFS, origin: Origin) -> Iterator[Bed]:
    bed = Bed(moosefs, origin)
    yield bed
    bed.end()


def inode_of_part(layout: Layout) -> int:
    (part,) = layout.parts.glob("*.part")
    return part.stat().st_ino


def test_two_hosts_fill_a_cold_cache_together_and_fetch_each_byte_once(bed: Bed) -> None:
    contents = {f"loras/{n}.safetensors": safetensors(2 * MIB, seed=n) for n in range(5)}
    models = [model(path, bed.origin.serve(f"/{path}", c)) for path, c in contents.items()]
    gate = HeldDownload(0)
    bed.origin.misbehave("/loras/", gate)

    fills = [bed.start("a", *models), bed.start("b", *models)]
    # Both fetch, each another model: nobody waits for the other while there is something left to do.
    wait_until(lambda: len(bed.downloads()) == 2, PATIENCE_S)
    assert len(set(bed.downloads())) == 2
    gate.open()

    for one in fills:
        one.end_well()
    for path, content in contents.items():
        for one in fills:
            assert one.layout.model(path).read_bytes() == read_all(content)
        # Each worker asks for the size once, with a byte.
        assert bed.origin.count(f"/{path}").body_bytes <= content.size_bytes + 2


def test_a_killed_holders_part_is_gone_on_with_at_once_by_the_other_host(bed: Bed) -> None:
    first, _gate = bed.start_held("a")
    second = bed.start("b")
    wait_until(lambda: second.waits_for("worker-a"), PATIENCE_S)
    inode = inode_of_part(second.layout)

    first.kill()

    second.end_well()
    content, published_inode, _ = second.published
    assert content == RIGHT
    assert published_inode == inode
    assert bed.origin.count("/a").body_bytes <= HELD_AT + len(RIGHT) - JOURNALLED + 2


def test_a_holder_whose_host_was_lost_is_replaced_and_comes_back_without_harm(bed: Bed) -> None:
    content = safetensors(CHUNK_BYTES + 8 * MIB, seed=1)
    bed.origin.serve("/a", content)
    held_at = CHUNK_BYTES + 2 * MIB
    first, gate = bed.start_held("a", at=held_at, synced=CHUNK_BYTES, sync_bytes=CHUNK_BYTES)
    inode = inode_of_part(Layout(bed.root("b")))

    # In mid-write: MooseFS lets nobody read the chunk that it was writing to for two minutes.
    bed.moosefs.cut("a")
    second = bed.start("b", silence_s=1)

    second.end_well()
    published = second.published
    assert published[0] == read_all(content)
    assert published[1] != inode
    # Each asks for the size with a byte, the second again when its turn comes.
    assert bed.origin.count("/a").body_bytes <= held_at + content.size_bytes - CHUNK_BYTES + 3
    gate.open()
    bed.moosefs.restore("a")
    first.end_well()
    assert second.published == published
    assert first.published == published


def test_a_lost_holder_that_comes_back_in_mid_takeover_stops_and_waits(bed: Bed) -> None:
    first, gate = bed.start_held("a")
    bed.moosefs.cut("a")
    second_gate = HeldDownload(MIB)
    bed.origin.misbehave("/a", second_gate)
    second = bed.start("b", silence_s=1)
    second_gate.wait_reached(PATIENCE_S)

    bed.moosefs.restore("a")
    gate.open()

    wait_until(lambda: first.waits_for("worker-b"), PATIENCE_S)
    second_gate.open()
    second.end_well()
    published = second.published
    assert published[0] == RIGHT
    first.end_well()
    assert second.published == published
    # The one that came back did not fetch its rest: it saw at its next sync that its part was taken.
    assert first.fetched_bytes < len(RIGHT)


def test_two_holders_by_force_leave_one_right_file(bed: Bed) -> None:
    first, gate = bed.start_held("a")
    inode = inode_of_part(first.layout)
    Layout(bed.root("b")).lock(PATH).unlink()

    second = bed.start("b")

    second.end_well()
    published = second.published
    assert published[0] == RIGHT
    assert published[1] != inode  # the first one may still write to that
    gate.open()
    first.end_well()
    assert second.published == published


def test_a_second_holder_by_force_that_is_the_slower_one_leaves_the_file_alone(bed: Bed) -> None:
    first, gate = bed.start_held("a")
    inode = inode_of_part(first.layout)
    Layout(bed.root("b")).lock(PATH).unlink()
    second_gate = HeldDownload(MIB)
    bed.origin.misbehave("/a", second_gate)
    second = bed.start("b")
    second_gate.wait_reached(PATIENCE_S)

    gate.open()
    wait_until(lambda: bed.origin.ledger.running == 1, PATIENCE_S)
    second_gate.open()
    first.end_well()
    published = first.published
    second.end_well()

    assert published[0] == RIGHT
    assert published[1] != inode
    assert second.published == published


@pytest.mark.parametrize("known", [True, False], ids=["at the ftruncate", "in mid-download"])
def test_a_quota_that_is_used_up_is_73_with_the_numbers_and_frees_the_part(
    bed: Bed, known: bool
) -> None:
    job = bed.root("b") / "jobs" / "j" / "output" / "x.png"
    write_to(torch_pickle(2_000_000), job)
    bed.moosefs.quota(bed.name, 5 * MIB)
    if not known:
        # Without its length the part grows as the bytes arrive, and meets the quota on its way.
        bed.origin.misbehave("/a", IgnoresRange(), NoLength())

    code, errors = bed.start("a").end()

    assert code == 73
    assert "EDQUOT" in errors
    assert "the models use 0 bytes, archives 0 bytes, jobs 2.0 MB" in errors
    assert not list(Layout(bed.root("b")).parts.iterdir())
    sent_bytes = bed.origin.count("/a").body_bytes
    assert sent_bytes == 1 if known else sent_bytes > MIB
    write_to(torch_pickle(2_000_000), job.with_name("y.png"))


@pytest.mark.parametrize("old", ["morpheus_model_cache", "job_data/model_cache"])
def test_an_old_cache_is_taken_over_by_renaming_and_seen_so_by_the_other_host(
    bed: Bed, old: str
) -> None:
    found = write_to(WEIGHTS, bed.root("a") / old / PATH)
    os.utime(found, (10**9, 10**9))
    inode = found.stat().st_ino

    Worker(bed.root("a")).fill(bed.wanted)

    other = Worker(bed.root("b"))
    assert other.layout.model(PATH).stat().st_ino == inode
    assert not other.plan(bed.wanted).work
    assert bed.origin.count("/a").body_bytes == 1


def test_what_one_host_has_filled_is_warm_on_the_other_at_once(bed: Bed) -> None:
    other = Worker(bed.root("b"), "worker-b")
    assert other.plan(bed.wanted).work
    bed.start("a").end_well()
    before = bed.origin.count()

    (cached,) = other.fill(bed.wanted)

    assert cached.file.read_bytes() == RIGHT
    assert bed.origin.count() == before


def test_a_model_that_another_host_published_since_the_plan_is_not_fetched_again(bed: Bed) -> None:
    other = Worker(bed.root("b"), "worker-b")
    plan = other.plan(bed.wanted)
    bed.start("a").end_well()
    # MooseFS shows the other hosts an older mtime for up to a second.
    os.utime(other.layout.model(PATH), (1, 1))
    before = bed.origin.count("/a").body_bytes

    (cached,) = fill(plan, other.context)

    assert cached.file.read_bytes() == RIGHT
    assert bed.origin.count("/a").body_bytes <= before + 1
