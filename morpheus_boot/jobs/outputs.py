"""What a job made: the files below its output/ since it was posted, and what its nodes said."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from morpheus_boot.errors import storage_error
from morpheus_boot.jobs.files import Output, list_outputs, open_or_make
from morpheus_boot.jobs.names import FileName, JobId
from morpheus_boot.volume.layout import Layout

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Outputs:
    """What lies in the job's output/ since ``since_ns`` of the volume's clock.

    Every method blocks and raises VolumeFull, StorageFailed.
    """

    def __init__(self, layout: Layout, job: JobId, since_ns: int) -> None:
        self._layout = layout
        self._job = job
        self._since_ns = since_ns

    def there_is_any(self) -> bool:
        """Whether the job has made a file, so that it has begun, whoever saw it."""
        return any(output.mtime_ns >= self._since_ns for output in self._listed())

    def made(self, named: Sequence[str], texts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """The files that the job made: those that nodes named, ``texts`` as files, then what else is new, by name."""
        written = [self._write(node, text) for node, text in texts]
        there = {str(output.path): output.mtime_ns for output in self._listed()}
        new = (path for path, mtime_ns in there.items() if mtime_ns >= self._since_ns)
        known = (path for path in (*named, *written) if path in there)
        return tuple(dict.fromkeys((*known, *new)))

    def _listed(self) -> tuple[Output, ...]:
        return list_outputs(self._layout, self._job)

    def _write(self, node: str, text: str) -> str:
        """Writes what a node said, whole, as text_<its id>.txt; returns the file's name."""
        name = FileName.from_client(f"text_{node}.txt").text
        part = f".{name}.{secrets.token_hex(6)}.tmp"
        folder = self._layout.job(self._job.text) / "output"
        try:
            fd = open_or_make(self._layout, self._layout.way(folder))
            try:
                with open(os.open(part, _NEW, 0o644, dir_fd=fd), "wb") as file:  # noqa: PTH123 - a descriptor
                    file.write(text.encode(errors="replace"))
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=fd)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise storage_error(str(self._job), folder, error) from error
        return name
