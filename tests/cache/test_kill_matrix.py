"""A fill killed at every step, and the fill after it: right, whole, recorded, and no synced byte fetched twice.

One run is recorded below libc; then it is repeated and killed after each of its calls in turn. What a kill before a
call leaves is what a kill after the call before it leaves, so that only the first call is also met from before.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from morpheus_boot.cache.records import read_record
from morpheus_boot.volume.layout import Layout
from tests.cache.fill_process import FillProcess, journalled_bytes
from tests.cache.worker import QUICK, Worker, model
from tests.testbed.content import read_all, safetensors, sha256, write_to
from tests.testbed.faults import IgnoresRange
from tests.testbed.origin import Origin
from tests.testbed.shim import Call, Shim
from tests.wait import wait_until

# As much as the transfer reads at once: a sync after each write. Five of them, the last one short.
SYNC_BYTES: Final = 256 * 1024
WEIGHTS: Final = safetensors(4 * SYNC_BYTES + 100)
OLD_WEIGHTS: Final = safetensors(2 * SYNC_BYTES, seed=5)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"
# No beat but the first, so that every run makes the same calls. A heartbeat counts as silent at once.
NEVER_S: Final = 1000.0
AT_ONCE: Final = 2

Scene = Callable[[Path, Origin], AbstractContextManager[FillProcess]]


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a run is killed: at the ``at``-th call."""

    at: int
    do: str
    call: Call

    def __str__(self) -> str:
        return f"{self.do} {self.at} {self.call.op} {self.call.path}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A scene's recorded run, and how it is killed."""

    shim: Shim
    folder: Path
    scene: Scene

    def record(self) -> tuple[Call, ...]:
        """The calls of a run that nobody kills."""
        with self._staged("recorded") as (root, _, fill):
            log = self.folder / "recorded.log"
            done = fill.run(env=self.shim.env(root=root, log=log))
            assert done.returncode == 0, done.stderr
        return self.shim.calls(log)

    def kill_at(self, calls: Iterable[Call], *, budget: bool = True) -> None:
        """Kills a run of its own after each of the calls, and has each followed by a second fill.

        ``budget``: the second fill may fetch no more than what no journal names.
        """
        kills = [Kill(call.index, "kill-after", call) for call in calls]
        if kills[0].at == 1:
            kills.insert(0, replace(kills[0], do="kill-before"))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda kill: self._kill_and_fill_again(kill, budget=budget), kills))

    def _kill_and_fill_again(self, kill: Kill, *, budget: bool) -> None:
        try:
            with self._staged(f"{kill.at}-{kill.do}") as (root, origin, fill):
                self._kill(kill, root, fill)
                _fill_again(root, origin, fill, budget=budget)
        except BaseException as error:
            error.add_note(str(kill))
            raise

    def _kill(self, kill: Kill, root: Path, fill: FillProcess) -> None:
        log = self.folder / f"{root.name}.log"
        env = self.shim.env(root=root, log=log, at=kill.at, do=kill.do)
        done = fill.run(env=env)
        assert done.returncode == -9, (done.returncode, done.stderr)
        last = self.shim.calls(log)[-1]
        assert (last.index, last.op) == (kill.at, kill.call.op), "this run made other calls"

    @contextmanager
    def _staged(self, name: str) -> Iterator[tuple[Path, Origin, FillProcess]]:
        root = self.folder / name
        root.mkdir()
        with Origin() as origin, self.scene(root, origin) as fill:
            yield root, origin, fill


def _fill_again(root: Path, origin: Origin, fill: FillProcess, *, budget: bool) -> None:
    layout = Layout(root)
    _assert_whole_or_absent(layout)
    there = len(RIGHT) if layout.model(PATH).exists() else journalled_bytes(layout)
    wait_until(lambda: origin.ledger.running == 0)
    origin.behave()
    before = origin.count().body_bytes

    lock_times = replace(QUICK.lock_times, silence_s=fill.silence_s)
    transfer_times = replace(QUICK.transfer_times, chunk_bytes=fill.chunk_bytes)
    options = replace(QUICK, lock_times=lock_times, transfer_times=transfer_times)
    Worker(root, "worker-2", options=options).fill(*fill.models)

    assert layout.model(PATH).read_bytes() == RIGHT
    record = read_record(layout, PATH)
    assert record is not None
    assert record.sha256 in (None, sha256(WEIGHTS))
    assert [p.name for p in layout.parts.glob("*")] == []
    # One byte is asked for to learn the size.
    fetched = origin.count().body_bytes - before
    assert not budget or fetched <= len(RIGHT) - there + 1, f"{fetched} fetched, {there} there"


def _assert_whole_or_absent(layout: Layout) -> None:
    for path in layout.model_cache.rglob("*"):
        assert path.is_dir() or path.read_bytes() in (RIGHT, read_all(OLD_WEIGHTS))


def _fill(root: Path, origin: Origin, *, sha: str | None = None) -> FillProcess:
    wanted = model(PATH, origin.serve("/a.safetensors", WEIGHTS), sha256=sha)
    return FillProcess(
        root,
        (wanted,),
        sync_bytes=SYNC_BYTES,
        chunk_bytes=SYNC_BYTES,
        beat_s=NEVER_S,
        silence_s=0.0,
    )


@contextmanager
def cold(root: Path, origin: Origin) -> Iterator[FillProcess]:
    """Nothing is there."""
    yield _fill(root, origin)


@pytest.fixture(scope="module")
def half(shim: Shim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume on which a worker died after two syncs."""
    root = tmp_path_factory.mktemp("half")
    with Origin() as origin:
        fill = _fill(root, origin, sha=sha256(WEIGHTS))
        env = shim.env(root=root, match="sync:.journal", since=3, do="kill-after")
        assert fill.run(env=env).returncode == -9
    assert journalled_bytes(Layout(root)) == 2 * SYNC_BYTES
    return root


@pytest.fixture(scope="module")
def cold_matrix(shim: Shim, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(shim, tmp_path_factory.mktemp("cold"), cold)


@pytest.fixture(scope="module")
def cold_calls(cold_matrix: Matrix) -> dict[str, list[Call]]:
    """The calls of a cold fill by the phase that they belong to."""
    calls = cold_matrix.record()
    ends = {
        "lock": _index(calls, "rename", "heartbeat"),
        "begin": _index(calls, "sync", ".journal"),
        "transfer": _index(calls, "sync", ".journal", last=True),
        "publish": _index(calls, "sync", "model_cache"),
        "record": calls[-1].index,
    }
    phases: dict[str, list[Call]] = {}
    done = 0
    for phase, end in ends.items():
        phases[phase] = list(calls[done:end])
        done = end
    return phases


def _index(calls: Iterable[Call], op: str, path: str, *, last: bool = False) -> int:
    found = [call.index for call in calls if call.op == op and path in call.path]
    return found[-1] if last else found[0]


@pytest.mark.parametrize("phase", ["lock", "begin", "transfer", "publish", "record"])
def test_a_cold_fill_killed_at_any_step_is_finished_by_the_next(
    cold_matrix: Matrix, cold_calls: dict[str, list[Call]], phase: str
) -> None:
    assert cold_calls[phase]
    cold_matrix.kill_at(cold_calls[phase])


def test_the_recorded_run_syncs_before_it_says_so_and_says_so_before_it_publishes(
    cold_calls: dict[str, list[Call]],
) -> None:
    transfer = [f"{c.op} {Path(c.path).suffix}" for c in cold_calls["transfer"]]
    assert transfer == ["write .part", "sync .part", "write .journal", "sync .journal"] * 5
    publish = [f"{c.op} {c.path.split('/')[0]}" for c in cold_calls["publish"]]
    assert publish.index("sync .morpheus") < publish.index("close .morpheus")
    assert publish.index("close .morpheus") < publish.index("rename .morpheus")
    assert publish[-1] == "sync model_cache"


def test_a_restart_killed_at_any_step_continues_nothing_that_it_dropped(
    shim: Shim, tmp_path: Path, half: Path
) -> None:
    @contextmanager
    def restarted(root: Path, origin: Origin) -> Iterator[FillProcess]:
        shutil.copytree(half, root, dirs_exist_ok=True)
        origin.misbehave("/a.safetensors", IgnoresRange())
        yield _fill(root, origin, sha=sha256(WEIGHTS))

    matrix = Matrix(shim, tmp_path, restarted)
    calls = matrix.record()
    begin = _index(calls, "truncate", ".part")
    end = _index(calls[begin:], "sync", ".part")
    matrix.kill_at(calls[begin - 2 : end], budget=False)


def test_a_takeover_killed_at_any_step_loses_no_more_than_its_copy(
    shim: Shim, tmp_path: Path, half: Path
) -> None:
    @contextmanager
    def taken_over(root: Path, origin: Origin) -> Iterator[FillProcess]:
        shutil.copytree(half, root, dirs_exist_ok=True)
        with FileLock(Layout(root).lock(PATH)):  # as a lost host keeps it
            yield _fill(root, origin, sha=sha256(WEIGHTS))

    matrix = Matrix(shim, tmp_path, taken_over)
    calls = matrix.record()
    begin = _index(calls, "create", ".part")
    end = _index(calls, "unlink", ".journal")
    inodes = {p.stat().st_ino for p in half.rglob("*.part")}
    assert (tmp_path / "recorded" / "model_cache" / PATH).stat().st_ino not in inodes
    matrix.kill_at(calls[begin - 1 : end])


def test_an_adoption_killed_at_any_step_fetches_nothing(shim: Shim, tmp_path: Path) -> None:
    @contextmanager
    def adopted(root: Path, origin: Origin) -> Iterator[FillProcess]:
        write_to(WEIGHTS, root / "morpheus_model_cache" / PATH)
        yield _fill(root, origin)

    matrix = Matrix(shim, tmp_path, adopted)
    calls = matrix.record()
    assert not [call for call in calls if call.path.endswith(".part")]
    matrix.kill_at(calls[_index(calls, "rename", "heartbeat") :])


def test_a_replacement_killed_at_any_step_leaves_the_old_model_or_the_new(
    shim: Shim, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    with Origin() as origin:
        Worker(old).fill(model(PATH, origin.serve("/old.safetensors", OLD_WEIGHTS)))

    @contextmanager
    def replaced(root: Path, origin: Origin) -> Iterator[FillProcess]:
        shutil.copytree(old, root, dirs_exist_ok=True)
        yield _fill(root, origin)

    matrix = Matrix(shim, tmp_path, replaced)
    calls = matrix.record()
    begin = _index(calls, "close", ".part")
    end = _index(calls, "rename", "records")
    # A new file that no record names yet contradicts the old one's record: it is fetched once more.
    matrix.kill_at(calls[begin - 1 : end], budget=False)
