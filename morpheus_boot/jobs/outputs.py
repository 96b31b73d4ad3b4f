"""What a job made: the files below its output/ that are new since it began."""

from collections.abc import Sequence

from morpheus_boot.jobs.folder import Output, list_outputs
from morpheus_boot.jobs.names import JobId
from morpheus_boot.layout import Layout


class Outputs:
    """The output/ of one job, looked at before and after. Every method blocks and raises StorageFailed."""

    def __init__(self, layout: Layout, job: JobId) -> None:
        self._layout = layout
        self._job = job
        self._before: frozenset[Output] | None = None

    def look(self) -> None:
        """Remembers what is there before the job makes anything."""
        self._before = frozenset(list_outputs(self._layout, self._job))

    def made(self, named: Sequence[str]) -> tuple[str, ...]:
        """The files that the job made: those that nodes named first, then what else is new, by name.

        Where nobody looked before, those that nodes named alone.
        """
        there = {str(output.path): output for output in list_outputs(self._layout, self._job)}
        before = self._before
        new = [] if before is None else [path for path, one in there.items() if one not in before]
        return tuple(dict.fromkeys((*(path for path in named if path in there), *new)))
