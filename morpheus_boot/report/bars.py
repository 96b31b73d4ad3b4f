"""Progress on a terminal: a bar for each model that is fetched, below the log's lines."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from morpheus_boot.report.state import ModelStage, ModelState

if TYPE_CHECKING:  # on a warm volume nothing is fetched, and rich is not imported
    from rich.console import Console
    from rich.progress import Progress, TaskID

Report = Callable[[ModelState], None]


@contextmanager
def shown_on(stream: TextIO, lines: Report, put_model: Report) -> Iterator[Report]:
    """What to report each ModelState to: ``lines`` itself, or on a terminal bars, and ``lines`` for all else.

    ``lines`` also puts a model into the state document; what only moves a bar goes to ``put_model`` for that.
    """
    if not stream.isatty():
        yield lines
        return
    bars = _Bars(stream, lines, put_model)
    try:
        yield bars
    finally:
        bars.close()


class _Bars:
    def __init__(self, stream: TextIO, lines: Report, put_model: Report) -> None:
        self._stream = stream
        self._lines = lines
        self._put_model = put_model
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __call__(self, model: ModelState) -> None:
        if model.stage is ModelStage.FETCHING:
            self._put_model(model)
            self._move(model)
            return
        if self._progress is not None and model.path in self._tasks:
            self._progress.remove_task(self._tasks.pop(model.path))
        self._lines(model)

    def close(self) -> None:
        """Takes the bars away."""
        for handler, stream in self._streams:
            handler.setStream(stream)
        if self._progress is not None:
            self._progress.stop()

    def _move(self, model: ModelState) -> None:
        progress = self._progress or self._start()
        if model.path not in self._tasks:
            self._tasks[model.path] = progress.add_task(
                model.path, total=model.size_bytes, retries=""
            )
        progress.update(
            self._tasks[model.path],
            completed=model.done_bytes,
            total=model.size_bytes,
            retries=f"{model.retries} retries" if model.retries else "",
        )

    def _start(self) -> "Progress":
        from rich import progress as rich_progress  # noqa: PLC0415 - only where a terminal shows it
        from rich.console import Console  # noqa: PLC0415 - only where a terminal shows it

        console = Console(file=self._stream)
        self._progress = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.DownloadColumn(),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[retries]}"),
            console=console,
            transient=True,
        )
        self._progress.start()
        for handler in logging.getLogger("morpheus").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                # Lines must go through the console, or they would run into the bars.
                self._streams.append((handler, self._stream))
                handler.setStream(_Above(console))
        return self._progress


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
