"""A volume that is full, read-only or failing: named as what it is, nothing partial, and right once it is over.

On MooseFS an error may come only at fsync or close, so each error is tried at each step of a fill.
"""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.cache.records import read_record
from morpheus_boot.errors import StorageFailed, VolumeFull
from morpheus_boot.layout import Layout
from tests.cache.fill_process import FillProcess
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import read_all, safetensors, sha256, write_to
from tests.testbed.faults import Gate, Trickling
from tests.testbed.origin import Origin
from tests.testbed.shim import Shim
from tests.wait import wait_until

# As much as the transfer reads at once: five writes, each with its sync, and the fsync at the end.
SYNC_BYTES: Final = 256 * 1024
WEIGHTS: Final = safetensors(4 * SYNC_BYTES + 100)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"
NEVER_S: Final = 1000.0

FULL: Final = {
    "EDQUOT": "the volume's quota is used up",
    "ENOSPC": "no space is left on the volume",
}
FAILING: Final = {
    "EROFS": "the volume is read-only",
    "EIO": "the volume reports an I/O error",
    "ENXIO": "the volume's storage server is gone",
    "ESTALE": "the volume's file handle is stale",
}
STEPS: Final = {
    "lock": ("create:.lock", 1),
    "first heartbeat": ("write:.heartbeat", 1),
    "part": ("create:.part", 1),
    "journal": ("create:.journal", 1),
    "ftruncate": ("truncate:.part", 1),
    "write": ("write:.part", 3),
    "fdatasync": ("sync:.part", 3),
    "journal line": ("write:.journal", 3),
    "journal sync": ("sync:.journal", 3),
    "last fsync": ("sync:.part", 6),
    "close": ("close:.part", 1),
    "rename": ("rename:model_cache", 1),
    "folder sync": ("sync:model_cache", 1),
    "record write": ("write:records", 1),
    "record sync": ("sync:records", 1),
    "record rename": ("rename:records", 1),
}


@pytest.fixture
def wanted_at(tmp_path: Path) -> Callable[[Origin, str], FillProcess]:
    def fill(origin: Origin, name: str) -> FillProcess:
        root = tmp_path / name
        root.mkdir()
        wanted = model(PATH, origin.serve(f"/{name}", WEIGHTS))
        return FillProcess(root, (wanted,), sync_bytes=SYNC_BYTES, beat_s=NEVER_S)

    return fill


def journalled_bytes(layout: Layout) -> int:
    """What the complete lines of the journals name; each line but the first is a range."""
    return sum(
        end - begin
        for journal in layout.parts.glob("*.journal")
        for line in journal.read_bytes().split(b"\n")[1:-1]
        for begin, end in [json.loads(line)]
    )


@pytest.mark.parametrize("step", STEPS)
def test_an_error_of_the_volume_is_named_and_the_next_fill_is_right(
    shim: Shim, origin: Origin, wanted_at: Callable[[Origin, str], FillProcess], step: str
) -> None:
    match, since = STEPS[step]

    def failure(error: str) -> str | None:
        fill = wanted_at(origin, error)
        layout = Layout(fill.root)
        env = shim.env(root=fill.root, match=match, since=since, do=f"errno:{error}")
        done = fill.run(env=env)
        said = f"{error}: exit {done.returncode}, {done.stderr}"
        if done.returncode != (73 if error in FULL else 74):
            return said
        if {**FULL, **FAILING}[error] not in done.stderr or f"({error} at " not in done.stderr:
            return said
        if layout.model(PATH).exists() and layout.model(PATH).read_bytes() != RIGHT:
            return f"{said}, a partial file was published"
        if error in FULL and list(layout.parts.glob("*")):
            return f"{said}, its part still takes room"
        there = len(RIGHT) if layout.model(PATH).exists() else journalled_bytes(layout)
        before = origin.count(f"/{error}").body_bytes
        Worker(fill.root, "worker-2").fill(*fill.models)
        if layout.model(PATH).read_bytes() != RIGHT or read_record(layout, PATH) is None:
            return f"{error}: the second fill is not right"
        if list(layout.parts.glob("*")):
            return f"{error}: left behind {list(layout.parts.glob('*'))}"
        fetched = origin.count(f"/{error}").body_bytes - before
        if fetched > len(RIGHT) - there + 1:
            return f"{error}: {fetched} bytes fetched although {there} were there"
        return None

    with ThreadPoolExecutor(2) as pool:
        failures = [f for f in pool.map(failure, {**FULL, **FAILING}) if f is not None]
    assert failures == []


@pytest.mark.parametrize("step", ["write", "fdatasync"])
def test_no_journal_names_what_a_failed_sync_may_have_lost(
    shim: Shim, origin: Origin, wanted_at: Callable[[Origin, str], FillProcess], step: str
) -> None:
    # A file system reports a lost page once: the sync after the failed one succeeds, and saves nothing.
    fill = wanted_at(origin, "once")
    layout = Layout(fill.root)
    log = fill.root.parent / "log"
    assert fill.run(env=shim.env(root=fill.root, log=log)).returncode == 0
    op = STEPS[step][0].partition(":")[0]
    calls = [c for c in shim.calls(log) if c.op == op and c.path.endswith(".part")]
    again = wanted_at(origin, "again")
    layout = Layout(again.root)

    done = again.run(env=shim.env(root=again.root, at=calls[2].index, do="errno:EIO"))

    assert done.returncode == 74
    assert journalled_bytes(layout) == 2 * SYNC_BYTES


def test_heartbeats_that_find_no_room_end_no_download(
    shim: Shim, origin: Origin, tmp_path: Path
) -> None:
    origin.misbehave("/a", Trickling(4 * MIB))
    root = tmp_path / "volume"
    root.mkdir()
    log = tmp_path / "log"
    fill = FillProcess(root, (model(PATH, origin.serve("/a", WEIGHTS)),), beat_s=0.01)
    env = shim.env(root=root, log=log, match="write:.heartbeat", since=2, do="errno:EDQUOT")

    done = fill.run(env=env)

    beats = [c for c in shim.calls(log) if c.op == "write" and "heartbeat" in c.path]
    assert len(beats) > 2
    assert done.returncode == 0, done.stderr
    assert Layout(root).model(PATH).read_bytes() == RIGHT


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of 8 MiB."""
    with mounted(tmp_path / "disk", "8m") as folder:
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


def test_a_read_only_volume_whose_models_are_all_there_needs_nothing(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    worker = Worker(disk)
    worker.fill(wanted)
    before = origin.count()

    with read_only(disk):
        assert worker.plan(wanted).work == ()
        (cached,) = worker.fill(wanted)

    assert cached.file.read_bytes() == RIGHT
    assert origin.count() == before


def test_a_model_that_a_read_only_volume_lacks_is_named(disk: Path, origin: Origin) -> None:
    there = model(PATH, origin.serve("/a", WEIGHTS))
    missing = model("loras/b.safetensors", origin.serve("/b", WEIGHTS))
    Worker(disk).fill(there)

    with read_only(disk), pytest.raises(StorageFailed) as caught:
        Worker(disk).fill(there, missing)

    assert caught.value.exit_code == 74
    assert "loras/b.safetensors: the volume is read-only (EROFS at " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_file_without_a_record_is_used_on_a_read_only_volume(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    write_to(WEIGHTS, Layout(disk).model(PATH))

    with read_only(disk):
        (cached,) = Worker(disk).fill(wanted)

    assert cached.file.read_bytes() == RIGHT


def test_a_full_disk_is_73_and_the_part_is_gone(disk: Path, origin: Origin) -> None:
    large = safetensors(12 * MIB)
    wanted = model(PATH, origin.serve("/a", large))

    with pytest.raises(VolumeFull, match="no space is left") as caught:
        Worker(disk, size_bytes=10**12).fill(wanted)

    assert caught.value.exit_code == 73
    assert list(Layout(disk).parts.glob("*")) == []
    (disk / "a-job-can-write").write_bytes(bytes(6 * MIB))


def test_a_disk_that_is_known_to_be_too_small_is_73_before_a_byte_is_fetched(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(12 * MIB)))

    with pytest.raises(VolumeFull, match="12.6 MB are missing"):
        Worker(disk).fill(wanted)

    assert origin.count().body_bytes <= 1


def test_a_killed_fill_of_a_disk_with_room_for_one_is_resumed(disk: Path, origin: Origin) -> None:
    content = safetensors(6 * MIB)
    wanted = model(PATH, origin.serve("/a", content))
    gate = Gate(5 * MIB)
    origin.misbehave("/a", gate, after=1, times=1)
    with FillProcess(disk, (wanted,), sync_bytes=MIB).running() as process:
        gate.wait_reached()
        wait_until(lambda: journalled_bytes(Layout(disk)) >= 4 * MIB)
        process.kill()

    Worker(disk).fill(wanted)

    assert Layout(disk).model(PATH).read_bytes() == read_all(content)


def test_a_takeover_that_finds_no_room_for_its_copy_leaves_no_part(
    disk: Path, origin: Origin
) -> None:
    content = safetensors(6 * MIB)
    wanted = model(PATH, origin.serve("/a", content), sha256=sha256(content))
    gate = Gate(5 * MIB)
    origin.misbehave("/a", gate, after=1, times=1)
    with FillProcess(disk, (wanted,), sync_bytes=MIB).running() as silent:
        gate.wait_reached()
        wait_until(lambda: journalled_bytes(Layout(disk)) >= 4 * MIB)
        silent.send_signal(signal.SIGSTOP)

        with pytest.raises(VolumeFull):
            Worker(disk, "worker-2", size_bytes=10**12).fill(wanted)

        assert list(Layout(disk).parts.glob("*")) == []


