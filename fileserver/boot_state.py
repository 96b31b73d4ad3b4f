"""The boot's state as this process sees it: read from local disk, so never behind a volume that hangs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from morpheus_boot.report.state import BootState, Readiness, read_state, state_file

# What RunPod's load balancer takes for initializing, healthy, and anything else for unhealthy.
_PING = {Readiness.STARTING: 204, Readiness.READY: 200}


class BootStatus:
    """The state document, parsed again only when it changed."""

    def __init__(self, local_dir: Path) -> None:
        self._path = state_file(local_dir)
        self._seen: tuple[int, int] | None = None
        self._state: BootState | None = None

    @property
    def state(self) -> BootState | None:
        """The boot's state; None while there is no document."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                self._state = read_state(self._path)
                self._seen = seen
        except OSError:
            return None
        return self._state

    @property
    def ping(self) -> int:
        """204 while the boot runs, 200 when it is ready, 503 when it failed or stopped."""
        state = self.state
        return 204 if state is None else _PING.get(state.readiness, 503)

    def document(self) -> dict[str, Any]:
        """The state as ``/status`` shows it."""
        state = self.state
        return {"readiness": Readiness.STARTING} if state is None else asdict(state)
