"""What a job made: the files below its output/ that are new since it began, and what its nodes said."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from morpheus_boot.errors import storage_error
from morpheus_boot.jobs.folder import Output, list_outputs, open_or_make
from morpheus_boot.jobs.names import FileName, JobId
from morpheus_boot.layout import Layout

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Outputs:
    """The output/ of one job, looked at before and after. Every method blocks and raises VolumeFull, StorageFailed."""

    def __init__(self, layout: Layout, job: JobId) -> None:
        self._layout = layout
        self._job = job
        self._before: frozenset[Output] | None = None

    def look(self) -> None:
        """Remembers what is there before the job makes anything."""
        self._before = frozenset(list_outputs(self._layout, self._job))

    def made(self, named: Sequence[str], texts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """The files that the job made: those that nodes named, ``texts`` as files, then what else is new, by name.

        Where nobody looked before, the former alone.
        """
        written = [self._write(node, text) for node, text in texts]
        there = {str(output.path): output for output in list_outputs(self._layout, self._job)}
        before = self._before
        new = [] if before is None else [path for path, one in there.items() if one not in before]
        known = (path for path in (*named, *written) if path in there)
        return tuple(dict.fromkeys((*known, *new)))

    def _write(self, node: str, text: str) -> str:
        """Writes what a node said, whole, as text_<its id>.txt; returns the file's name."""
        name = FileName.from_client(f"text_{node}.txt").text
        part = f".{name}.{secrets.token_hex(6)}.tmp"
        way = ("jobs", self._job.text, "output")
        try:
            folder = open_or_make(self._layout, way)
            try:
                with open(os.open(part, _NEW, 0o644, dir_fd=folder), "wb") as file:  # noqa: PTH123 - a descriptor
                    file.write(text.encode(errors="replace"))
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=folder)
                raise
            finally:
                os.close(folder)
        except OSError as error:
            raise storage_error(str(self._job), self._layout.root.joinpath(*way), error) from error
        return name
