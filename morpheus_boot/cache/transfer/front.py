"""SHA-256 of a part's contiguous front, beside its transfer, read back from the page cache."""

import errno
import hashlib
import threading
from typing import Final

from morpheus_boot.cache.parts import ModelPart

_BUFFER_BYTES: Final = 256 * 1024


class FrontHash:
    """A thread that hashes what lies without a gap from the beginning of a part, as it grows."""

    def __init__(self, part: ModelPart) -> None:
        self._part = part
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._changed = threading.Condition()
        self._hashing = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._error: OSError | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def grown(self) -> None:
        """Says that the front may have moved. Raises OSError: what is there can't be read back."""
        if self._error is not None:
            raise self._error
        if self._part.written_front > self._at:
            with self._changed:
                self._changed.notify_all()

    def restart(self) -> None:
        """Begins anew, and the part with it; nobody writes meanwhile. Raises OSError."""
        with self._hashing:
            self._part.restart()
            self._sha256, self._at = hashlib.sha256(), 0

    def end(self) -> None:
        """Ends the thread, wherever it is, and waits until it reads no more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def hexdigest(self) -> str:
        """The digest of the whole, once it is hashed to its end. Raises OSError: it can't be read back."""
        front = self._part.written_front
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._at >= front or self._error)
        if self._error is not None:
            raise self._error
        return self._sha256.hexdigest()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or self._part.written_front > self._at)
                if self._ending:
                    return
            try:
                self._catch_up()
            except OSError as error:
                self._error = error
            with self._changed:
                self._changed.notify_all()
            if self._error is not None:
                return

    def _catch_up(self) -> None:
        while not self._ending:
            with self._hashing:
                left_bytes = self._part.written_front - self._at
                if left_bytes <= 0:
                    return
                want = self._buffer[: min(len(self._buffer), left_bytes)]
                count = self._part.read_into(self._at, want)
                if count == 0:
                    raise OSError(errno.EIO, "the part is shorter than its journal says")
                self._sha256.update(want[:count])
                self._at += count
