"""Any sequence of faults ends with the right bytes or one error; the clock is a fake one, so that no wait is waited."""

import hashlib
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from morpheus_boot.cache.options import Credentials, TransferTimes
from morpheus_boot.cache.origins.resolutions import resolve
from morpheus_boot.cache.origins.web import WebOrigin
from morpheus_boot.cache.parts import open_part
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.cache.transfer.stream import VersionChanged
from morpheus_boot.cache.transfer.transfer import Engine
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import MorpheusError
from morpheus_boot.manifest import UrlSource
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.backoff import Backoff
from tests.testbed.content import read_all, safetensors, sha256
from tests.testbed.faults import (
    Changed,
    Chunked,
    Empty,
    Fault,
    Gzip,
    IgnoresIfRange,
    IgnoresRange,
    LoginPage,
    NoAnswer,
    NoEtag,
    NoLength,
    Redirect,
    ResetAt,
    Status,
    TooMuch,
    Truncated,
    WeakEtag,
    WrongRange,
    WrongTotal,
)
from tests.testbed.origin import Origin

KIB: Final = 1024
SPAN_BYTES: Final = 32 * KIB
OLD: Final = safetensors(6 * SPAN_BYTES + 77)
NEW: Final = safetensors(6 * SPAN_BYTES + 78, seed=3)
TIMES: Final = TransferTimes(
    sync_bytes=2 * SPAN_BYTES,
    span_bytes=SPAN_BYTES,
    connections=4,
    read_s=0.3,
    progress_bytes=SPAN_BYTES,
)


@dataclass
class FakeTime:
    """A clock that goes on when somebody waits."""

    now_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clock(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self.lock:
            self.now_s += seconds
        # Not at once: whoever watches must leave the processor to those it watches.
        return event.wait(min(seconds, 0.001))


@dataclass(frozen=True)
class Trouble:
    """Faults for some of the requests."""

    fault: Fault
    after: int
    times: int | None


def positions() -> st.SearchStrategy[int]:
    return st.integers(0, 2 * SPAN_BYTES)


faults: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Truncated, positions()),
    st.builds(ResetAt, positions()),
    st.builds(Status, st.sampled_from([401, 404, 408, 416, 500, 502])),
    st.builds(
        Status, st.sampled_from([429, 503]), st.sampled_from([0, 1, 30, 3600]), st.booleans()
    ),
    st.builds(WrongRange, st.just(1)),
    st.builds(TooMuch, st.just(9), declared=st.booleans()),
    st.builds(NoEtag, st.booleans()),
    st.builds(WrongTotal, st.just(10_000_000)),
    st.sampled_from(
        [
            *(IgnoresRange(), IgnoresIfRange(), Chunked(), NoLength(), Gzip(), Empty()),
            *(LoginPage(), NoAnswer(), WeakEtag(), Changed(NEW), Redirect("/a"), Redirect("/b")),
        ]
    ),
)
troubles: st.SearchStrategy[list[Trouble]] = st.lists(
    st.builds(
        Trouble, faults, after=st.integers(0, 10), times=st.one_of(st.none(), st.integers(1, 5))
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(troubles, st.booleans())
def test_any_sequence_of_faults_ends_with_right_bytes_or_an_error(
    sequence: list[Trouble], digest_known: bool
) -> None:
    with Origin() as site, tempfile.TemporaryDirectory() as folder:
        url = site.serve("/a", OLD)
        site.serve("/b", OLD)
        for each in sequence:
            site.misbehave("/a", each.fault, after=each.after, times=each.times)
        outcome = fetch(url, Layout(Path(folder)), sha256(OLD) if digest_known else None)

    # Without a length said, whoever is cut off can't know it: the check by type finds that (test_faults).
    unsaid = any(isinstance(each.fault, NoLength | Gzip | Empty) for each in sequence)
    assert unsaid or outcome in (None, read_all(OLD), read_all(NEW))


def fetch(url: str, layout: Layout, digest: str | None) -> bytes | None:
    """The bytes that a transfer says are whole, or None where it says that they can't be had."""
    time = FakeTime()
    engine = Engine(TIMES, threading.Event(), clock=time.clock, pause=time.wait)
    origin = WebOrigin("the model", UrlSource(Secret(url)), Credentials(), engine.client)
    readings: list[Reading] = []
    try:
        resolved = resolve(origin, Backoff(0.001, 0.002, 0.02), engine.stopping)
    except MorpheusError:
        return None
    part = open_part(layout, "folder/model", resolved.version, inherits=True, chunk_bytes=1)
    try:
        found = engine.fetch(origin, resolved, part, readings.append)
        content = part.path.read_bytes()
    except (MorpheusError, VersionChanged):
        return None
    finally:
        part.close()
    assert found == hashlib.sha256(content).hexdigest()
    assert readings[-1].done_bytes == len(content)
    # No more than a deadline for each span's worth of new bytes, whatever the origin wishes.
    assert time.now_s < 8 * TIMES.retry.deadline_s * TIMES.connections
    return content
