"""Whether the volume is still there: after an unmount its path names the bare mount point, which takes every write."""

import threading
from typing import Final

from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.volume.layout import Layout

_MEND: Final = "mount it again; what comes until then is refused"


class VolumeGone(MorpheusError):
    """The volume was unmounted, or another one lies in its place."""

    exit_code = Exit.STORAGE


class Presence:
    """Knows the volume by its ``.morpheus/``, as that was at the first look. Each look is one stat, from any thread."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._folder = layout.ours
        self._known: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def require(self) -> None:
        """Raises VolumeGone where the volume is not the one of the first look, until that is back."""
        if self._known is None:
            self._known = self._first_look()
            return
        try:
            found = self._folder.stat()
        except OSError as error:
            cause = f"it is not mounted any more ({error.strerror} at {self._folder})"
            raise VolumeGone("volume", cause, _MEND) from error
        # Mounted again, a FUSE file system has another device number; MooseFS keeps its inodes.
        if found.st_ino != self._known[1]:
            raise VolumeGone("volume", f"another one lies at {self._folder.parent}", _MEND)

    def _first_look(self) -> tuple[int, int] | None:
        """The folder's device and inode; None where it can't be made, and so nothing be stored either."""
        with self._lock:
            try:
                self._folder.mkdir(exist_ok=True)
                found = self._folder.stat()
            except OSError:
                return None
            return found.st_dev, found.st_ino
