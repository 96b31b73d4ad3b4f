"""How many files each job's input holds, so that the limit costs no listing for every upload."""

import threading
from collections import OrderedDict
from typing import Final

from fileserver.answers import TooManyFiles
from morpheus_boot.jobs.files import count_inputs, has_input
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.volume.layout import Layout

_REMEMBERED_JOBS: Final = 1024


class InputCounts:
    """Counts by what this server stored; lists a job when it first meets it, and before it refuses.

    Safe from any thread. Other workers' uploads to the same job are seen when it is listed.
    """

    def __init__(self, layout: Layout, limit: int) -> None:
        self._layout = layout
        self._limit = limit
        self._counts: OrderedDict[JobId, int] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: JobId, sub_dir: SubDir, name: FileName) -> None:
        """Counts one more file. Raises TooManyFiles where the job is full and has none of that name, StorageFailed."""
        with self._lock:
            known = self._counts.get(job)
        # A replaced file was counted twice: before refusing, look.
        if known is None or known >= self._limit:
            known = count_inputs(self._layout, job)
            if known >= self._limit:
                if has_input(self._layout, job, sub_dir, name):
                    return
                raise TooManyFiles(
                    str(job), f"its input holds {known} files", "clean it up, or use another job"
                )
            with self._lock:
                self._counts[job] = known
        with self._lock:
            self._counts[job] = self._counts.get(job, known) + 1
            self._counts.move_to_end(job)
            if len(self._counts) > _REMEMBERED_JOBS:
                self._counts.popitem(last=False)

    def forget(self, job: JobId) -> None:
        """Says that ``job`` was cleaned up."""
        with self._lock:
            self._counts.pop(job, None)
