"""Renders what the cache reports: into the state document, the log's lines, and bars below them on a terminal."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from morpheus_boot.report.state import ModelStage, ModelState
from morpheus_boot.volume.mount import size_text

if TYPE_CHECKING:  # on a warm volume nothing is fetched, and rich is not imported
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Report = Callable[[ModelState], None]

_LOG: Final = logging.getLogger("morpheus.cache")
_LINE_EVERY_S: Final = 10.0


class Progress:
    """Called with each ModelState; from one thread at a time."""

    def __init__(
        self,
        put_model: Report = lambda _model: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put_model = put_model
        self._clock = clock
        self._last: dict[str, tuple[ModelStage, str]] = {}
        self._said_at: dict[str, float] = {}

    def __call__(self, model: ModelState) -> None:
        """Takes one report."""
        self._put_model(model)
        now = self._clock()
        # A transfer's trouble may be another one each time.
        detail = "" if model.stage is ModelStage.FETCHING else model.detail
        if self._last.get(model.path) != (model.stage, detail):
            self._last[model.path] = (model.stage, detail)
        elif now - self._said_at[model.path] < _LINE_EVERY_S:
            return
        self._said_at[model.path] = now
        self._say(model)

    def _say(self, model: ModelState) -> None:
        match model.stage:
            case ModelStage.FETCHING if model.done_bytes or model.retries:
                _LOG.info("%s: %s, %s", model.path, _done(model), _pace(model))
            case ModelStage.FETCHING:
                _LOG.info("%s: fetching %s", model.path, size_text(model.size_bytes))
            case ModelStage.WAITING:
                _LOG.info("%s: waiting, %s (%s)", model.path, model.detail, _done(model))
            case ModelStage.PRESENT:
                _LOG.info("%s: present, %s", model.path, size_text(model.size_bytes))
            case ModelStage.FAILED if model.required:
                # The error itself says why, once: at the end of the fill.
                _LOG.info("%s: failed, its error is said at the end", model.path)
            case ModelStage.FAILED:
                pass  # whoever goes on without it says so
            case ModelStage.MISSING:
                _LOG.warning("%s: missing, %s", model.path, model.detail)


class Reading:
    """How far the reading of many files is, in a line now and then."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes = total_bytes
        self._clock = clock
        self._said_at = clock()
        self._begun_bytes = 0
        self._read_bytes = 0

    def begin(self, size_bytes: int) -> None:
        """The next file is read, of ``size_bytes``; the one before is done, whether all of it was read or not."""
        self._read_bytes = self._begun_bytes
        self._begun_bytes += size_bytes

    def __call__(self, count: int) -> None:
        """Takes the number of bytes that were read since the last call."""
        self._read_bytes += count
        now = self._clock()
        if now - self._said_at >= _LINE_EVERY_S:
            self._said_at = now
            done, total = size_text(self._read_bytes), size_text(self._total_bytes)
            _LOG.info("read %s of %s", done, total)


def _pace(model: ModelState) -> str:
    left = "" if model.left_s is None else f", {model.left_s:.0f} s left"
    retries = f", {model.retries} retries ({model.detail})" if model.retries else ""
    return f"{size_text(int(model.rate_bytes_per_s))}/s{left}{retries}"


def _done(model: ModelState) -> str:
    if not model.size_bytes:
        return size_text(model.done_bytes)
    percent = 100 * model.done_bytes // model.size_bytes
    return f"{percent}% of {size_text(model.size_bytes)}"


@contextmanager
def shown_on(stream: TextIO, put_model: Report) -> Iterator[Report]:
    """What to report each ModelState to: Progress, which on a terminal has a bar for each model that is fetched."""
    lines = Progress(put_model)
    if not stream.isatty():
        yield lines
        return
    bars = _Bars(stream, lines, put_model)
    try:
        yield bars
    finally:
        bars.close()


class _Bars:
    """A bar for each model that is fetched, below the log's lines; ``lines`` takes all other reports."""

    def __init__(self, stream: TextIO, lines: Report, put_model: Report) -> None:
        self._stream = stream
        self._lines = lines
        self._put_model = put_model
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __call__(self, model: ModelState) -> None:
        if model.stage is ModelStage.FETCHING:
            self._put_model(model)
            self._move(model)
            return
        if self._bars is not None and model.path in self._tasks:
            self._bars.remove_task(self._tasks.pop(model.path))
        self._lines(model)

    def close(self) -> None:
        """Takes the bars away."""
        for handler, stream in self._streams:
            handler.setStream(stream)
        if self._bars is not None:
            self._bars.stop()

    def _move(self, model: ModelState) -> None:
        bars = self._bars or self._start()
        if model.path not in self._tasks:
            self._tasks[model.path] = bars.add_task(model.path, total=model.size_bytes, retries="")
        bars.update(
            self._tasks[model.path],
            completed=model.done_bytes,
            total=model.size_bytes,
            retries=f"{model.retries} retries" if model.retries else "",
        )

    def _start(self) -> "RichProgress":
        from rich import progress as rich_progress  # noqa: PLC0415 - only where a terminal shows it
        from rich.console import Console  # noqa: PLC0415 - only where a terminal shows it

        console = Console(file=self._stream)
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.DownloadColumn(),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[retries]}"),
            console=console,
            transient=True,
        )
        self._bars.start()
        for handler in logging.getLogger("morpheus").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                # Lines must go through the console, or they would run into the bars.
                self._streams.append((handler, self._stream))
                handler.setStream(_Above(console))
        return self._bars


class _Above:
    """A stream whose lines appear above the bars."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    def write(self, text: str) -> int:
        """Prints ``text`` as it is."""
        if text.strip():
            self._console.print(text.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""
