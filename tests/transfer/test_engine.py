"""Several connections for one file: each byte once, each replaced when it must be, and an end when told."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.resolutions import origin_of
from morpheus_boot.cache.parts import Version, open_part
from morpheus_boot.cache.records import read_record
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.cache.transfer.transfer import Engine
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelStage
from morpheus_boot.volume.journal import read_journal
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.backoff import Backoff
from morpheus_boot.work.stopping import Stopped
from tests.cache.worker import Worker, model
from tests.testbed.content import safetensors, sha256
from tests.testbed.exchange import Reply, Request, plain
from tests.testbed.faults import (
    Fault,
    Gate,
    IgnoresRange,
    NoAnswer,
    Stalled,
    Status,
    Trickling,
)
from tests.testbed.origin import Origin
from tests.transfer.scene import KIB, PATH, RIGHT, SPAN_BYTES, TIMES, WEIGHTS, parallel_worker
from tests.wait import wait_until


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return parallel_worker(tmp_path)


def patient(worker: Worker) -> Worker:
    """The same worker, for whom a silent origin may stay silent for minutes."""
    times = replace(TIMES, read_s=300.0, window_s=300.0)
    return replace(worker, options=replace(worker.options, transfer_times=times))


def test_a_file_comes_over_several_connections_each_byte_once(
    worker: Worker, origin: Origin
) -> None:
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", Trickling(1024.0 * KIB))

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    assert origin.ledger.peak > 2
    assert origin.count().body_bytes == WEIGHTS.size_bytes + 1
    record = read_record(worker.layout, PATH)
    assert record is not None
    assert record.sha256 == sha256(WEIGHTS)


def test_a_small_file_is_one_request_for_the_whole(worker: Worker, origin: Origin) -> None:
    small = safetensors(SPAN_BYTES)

    worker.fill(model(PATH, origin.serve("/a", small)))

    assert [s.headers.get("range") for s in origin.seen()] == ["bytes=0-0", None]


def test_a_transfer_that_was_stopped_asks_only_for_what_is_missing(
    worker: Worker, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    gate = Gate(5 * SPAN_BYTES)
    origin.misbehave("/a", gate, after=1)
    ended = in_background(worker, wanted)
    gate.wait_reached()
    worker.stopping.set()
    assert ended.wait(5)
    origin.behave()
    (part,) = worker.layout.parts.glob("*.part")
    journal = read_journal(part, Version)
    assert journal is not None
    assert journal.done_bytes >= SPAN_BYTES
    before = len(origin.seen())

    Worker(worker.root, options=worker.options).fill(wanted)

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    # Those that were held may still send what nobody takes any more: what was asked for is what counts.
    resolved, *spans = (s.headers["range"] for s in origin.seen()[before:])
    assert resolved == "bytes=0-0"
    ends = (map(int, span.removeprefix("bytes=").split("-")) for span in spans)
    asked_bytes = sum(last - first + 1 for first, last in ends)
    assert asked_bytes == WEIGHTS.size_bytes - journal.done_bytes


@pytest.mark.parametrize("fault", [NoAnswer(silent=True), Stalled(1000)])
@pytest.mark.parametrize("after", [0, 1])
def test_a_stop_does_not_wait_for_an_origin_that_says_nothing(
    worker: Worker, origin: Origin, fault: Fault, after: int
) -> None:
    waiting = patient(worker)
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", fault, after=after)
    ended = in_background(waiting, model(PATH, url))
    wait_until(lambda: origin.ledger.running > 0)

    began = time.monotonic()
    worker.stopping.set()

    assert ended.wait(5)
    assert time.monotonic() - began < 2


def test_a_stop_does_not_wait_for_the_next_attempt(worker: Worker, origin: Origin) -> None:
    retry = Backoff(first_s=60.0, most_s=60.0, deadline_s=600.0)
    times = replace(TIMES, retry=retry)
    waiting = replace(worker, options=replace(worker.options, transfer_times=times))
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", NoAnswer(), after=1)
    ended = in_background(waiting, model(PATH, url))
    wait_until(lambda: origin.count().requests > 1)

    worker.stopping.set()

    assert ended.wait(5)


@dataclass(frozen=True)
class AtMost(Fault):
    """Answers 429 to whoever comes while so many are served."""

    connections: int
    origin: Origin

    def reply(self, request: Request, reply: Reply) -> Reply:
        crowded = self.origin.ledger.running >= self.connections
        return plain(429, headers={"Retry-After": "0"}) if crowded else reply


@pytest.mark.parametrize("allowed", [1, 2])
def test_an_origin_that_allows_few_connections_is_given_few(
    worker: Worker, origin: Origin, allowed: int
) -> None:
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", AtMost(allowed, origin), Trickling(2048.0 * KIB), after=1)

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    refused = [s for s in origin.seen() if s.status == 429]
    assert len(refused) < 12


def test_an_origin_that_was_away_for_a_moment_has_all_its_connections_again_soon(
    tmp_path: Path, origin: Origin
) -> None:
    engine = Engine(replace(TIMES, limited_s=0.05), threading.Event())
    source = origin_of(model(PATH, origin.serve("/a", WEIGHTS)), Credentials(), engine.client)
    origin.misbehave("/a", Status(503), after=1, times=7)
    origin.misbehave("/a", Trickling(256.0 * KIB))
    resolved = source.resolve()
    part = open_part(Layout(tmp_path), PATH, resolved.version, inherits=True, chunk_bytes=KIB)
    readings: list[Reading] = []

    assert engine.fetch(source, resolved, part, readings.append) == sha256(WEIGHTS)

    seen = [reading.connections for reading in readings]
    assert max(seen[seen.index(min(seen[:-1])) :]) == TIMES.connections
    part.close()


def test_several_models_at_once_share_the_connections(worker: Worker, origin: Origin) -> None:
    times = replace(TIMES, models=3, connections=6)
    several = replace(worker, options=replace(worker.options, transfer_times=times))
    wanted = [model(f"loras/{n}.safetensors", origin.serve(f"/{n}", WEIGHTS)) for n in range(5)]
    origin.misbehave("/", Trickling(1024.0 * KIB))

    cached = several.fill(*wanted)

    assert [each.file.read_bytes() for each in cached] == [RIGHT] * 5
    # A transfer that ends gives its share to the others only between two spans.
    assert 3 <= origin.ledger.peak <= 12


def test_nothing_of_the_spans_is_kept_where_the_whole_file_comes_instead(
    worker: Worker, origin: Origin
) -> None:
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", Trickling(1024.0 * KIB))
    origin.misbehave("/a", IgnoresRange(), after=7, times=1)

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    # The whole is asked for anew, while spans of before were still on their way.
    assert [s.headers.get("range") for s in origin.seen()][-1] is None


def test_progress_says_rate_time_left_and_retries(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a", WEIGHTS)
    origin.misbehave("/a", NoAnswer(), after=1, times=2)
    origin.misbehave("/a", Trickling(600.0 * KIB))

    worker.fill(model(PATH, url))

    moving = [s for s in worker.states if s.stage is ModelStage.FETCHING and s.rate_bytes_per_s]
    assert moving
    assert any(s.left_s for s in moving)
    assert max(s.retries for s in moving) >= 2
    done = [s.done_bytes for s in worker.states if s.stage is ModelStage.FETCHING]
    assert done == sorted(done)
    assert done[-1] == WEIGHTS.size_bytes


def test_a_volume_that_fails_at_the_end_does_not_hide_why_it_ended(
    tmp_path: Path, origin: Origin
) -> None:
    stopping = threading.Event()
    engine = Engine(replace(TIMES, sync_bytes=WEIGHTS.size_bytes), stopping)
    source = origin_of(model(PATH, origin.serve("/a", WEIGHTS)), Credentials(), engine.client)
    resolved = source.resolve()
    part = open_part(Layout(tmp_path), PATH, resolved.version, inherits=True, chunk_bytes=KIB)

    def stop_and_break(reading: Reading) -> None:
        if reading.done_bytes:
            # Nothing that was written can be synced any more.
            part.path.unlink(missing_ok=True)
            stopping.set()

    origin.misbehave("/a", Trickling(100.0 * KIB))

    with pytest.raises(Stopped):
        engine.fetch(source, resolved, part, stop_and_break)
    part.close()


def in_background(worker: Worker, *wanted: ModelSpec) -> threading.Event:
    """Fills in a thread; the event says that it has ended by being stopped."""
    ended = threading.Event()

    def fill() -> None:
        with suppress(Stopped):
            worker.fill(*wanted)
        ended.set()

    threading.Thread(target=fill, daemon=True).start()
    return ended
