"""One worker as a process of its own: plans and fills, as ``fill`` does, with times that no test waits for.

``python -m tests.cache.fill_process --volume DIR --worker NAME --model PATH=URL[=SHA256] ...`` prints each state
that it reports as a line of JSON, and ends with 0 or the code that the command line would end with. With
``--tell-opens`` each file that it opens on the volume, and each folder that it makes there, is such a line, too.
"""

import argparse
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from morpheus_boot.cache import FillOptions, fill
from morpheus_boot.errors import Exit, MorpheusError, SeveralErrors, storage_error
from morpheus_boot.manifest import ModelSpec, UrlSource
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.layout import Layout
from tests.cache.worker import QUICK, Worker, model

_MODEL: Final = re.compile(r"(?P<path>[^=]+)=(?P<url>.+?)(=(?P<sha256>[0-9a-f]{64}))?")
_BOUGHT_BYTES: Final = 10**12


@dataclass(frozen=True, slots=True)
class FillProcess:
    """How such processes are started: on one volume, for one list of models."""

    root: Path
    models: tuple[ModelSpec, ...]
    sync_bytes: int = QUICK.transfer_times.sync_bytes
    chunk_bytes: int = QUICK.transfer_times.chunk_bytes
    beat_s: float = QUICK.lock_times.beat_s
    silence_s: float = QUICK.lock_times.silence_s
    deadline_s: float = QUICK.lock_times.deadline_s
    tells_opens: bool = False

    def start(
        self, worker: str = "worker-1", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts one, with its stdout and stderr piped; ``env`` is the shim's, or nothing."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.cache.fill_process"),
                *("--volume", str(self.root), "--worker", worker),
                *("--sync-bytes", str(self.sync_bytes), "--chunk-bytes", str(self.chunk_bytes)),
                *("--beat", str(self.beat_s), "--silence", str(self.silence_s)),
                *("--deadline", str(self.deadline_s)),
                *(word for wanted in self.models for word in ("--model", _text_of(wanted))),
                *(("--tell-opens",) if self.tells_opens else ()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=dict(env or {}),
        )

    @contextmanager
    def running(
        self, worker: str = "worker-1", env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """One that is killed at the latest when the test is done with it, stopped or not."""
        with self.start(worker, env) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(
        self, worker: str = "worker-1", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one to its end, whichever that is."""
        with self.running(worker, env) as process:
            said, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def journalled_bytes(layout: Layout) -> int:
    """What the complete lines of the fullest journal name; each line but the first is a range."""
    return max(map(_named_bytes, layout.parts.glob("*.journal")), default=0)


def _named_bytes(journal: Path) -> int:
    ranges = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
    return sum(end - begin for begin, end in ranges)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills; returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    worker = Worker(options.volume, options.worker, _BOUGHT_BYTES, _fill_options(options))
    if options.tell_opens:
        _tell_opens(options.volume)
    try:
        context = replace(worker.context, report=_print_state)
        fill(worker.plan(*options.model), context)
    except MorpheusError as error:
        return _say(error)
    except OSError as error:
        return _say(storage_error("volume", options.volume, error))
    return Exit.DONE


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--volume", type=Path, required=True, metavar="DIR")
    parser.add_argument("--worker", default="worker-1", metavar="NAME")
    parser.add_argument("--sync-bytes", type=int, default=QUICK.transfer_times.sync_bytes)
    parser.add_argument("--chunk-bytes", type=int, default=QUICK.transfer_times.chunk_bytes)
    parser.add_argument("--beat", type=float, default=QUICK.lock_times.beat_s)
    parser.add_argument("--silence", type=float, default=QUICK.lock_times.silence_s)
    parser.add_argument("--deadline", type=float, default=QUICK.lock_times.deadline_s)
    parser.add_argument("--model", type=_model, action="append", required=True)
    parser.add_argument("--tell-opens", action="store_true")
    return parser.parse_args(arguments)


def _tell_opens(volume: Path) -> None:
    """Here and not in the tests' own process, since Python lets no hook be taken away.

    In Python 3.11 each makes the start of a thread that is traced fail, now and then.
    """

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in {"open", "os.mkdir"} and str(arguments[0]).startswith(f"{volume}/"):
            print(json.dumps({event: str(arguments[0])}), flush=True)

    sys.addaudithook(hear)


def _fill_options(options: argparse.Namespace) -> FillOptions:
    return replace(
        QUICK,
        worker=options.worker,
        lock_times=replace(
            QUICK.lock_times,
            beat_s=options.beat,
            silence_s=options.silence,
            deadline_s=options.deadline,
        ),
        transfer_times=replace(
            QUICK.transfer_times, sync_bytes=options.sync_bytes, chunk_bytes=options.chunk_bytes
        ),
    )


def _model(text: str) -> ModelSpec:
    match = _MODEL.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return model(match["path"], match["url"], sha256=match["sha256"])


def _text_of(wanted: ModelSpec) -> str:
    assert isinstance(wanted.source, UrlSource)
    url = wanted.source.url.reveal()
    return f"{wanted.path}={url}" + (f"={wanted.sha256}" if wanted.sha256 else "")


def _print_state(state: ModelState) -> None:
    print(json.dumps(asdict(state)), flush=True)


def _say(error: MorpheusError) -> int:
    print(error, file=sys.stderr)
    first = error.errors[0] if isinstance(error, SeveralErrors) else error
    return first.exit_code


if __name__ == "__main__":
    sys.exit(main())
