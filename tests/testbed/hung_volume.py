"""A volume that hangs, as MooseFS does when its link is cut: who touches it can't even be killed.

A FUSE file system that answers its mount and then nothing: a request that was read and not answered
is waited for without end (fs/fuse/dev.c, request_wait_answer).
"""

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HEADER = struct.Struct("<IIQQIIII")
_ANSWER = struct.Struct("<IiQ")
_INIT = 26
_INIT_ANSWER = struct.pack("<IIIIHHIIHH32x", 7, 31, 0, 0, 0, 0, 4096, 0, 0, 0)
_FORCE_DETACH = 1 | 2  # MNT_FORCE lets go whoever is held, MNT_DETACH unmounts though it is in use


class HungVolume:
    """Answers nothing, and knows whether someone waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = threading.Event()

    def holds_someone(self) -> bool:
        return self._held.is_set()

    def serve(self) -> None:
        while request := self._request():
            _, opcode, unique, *_ = _HEADER.unpack_from(request)
            if opcode == _INIT:
                answer = _ANSWER.pack(_ANSWER.size + len(_INIT_ANSWER), 0, unique)
                os.write(self._fd, answer + _INIT_ANSWER)
            else:
                self._held.set()

    def _request(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 20)
        except OSError:
            return b""  # unmounted


@contextmanager
def hung_volume(folder: Path) -> Iterator[HungVolume]:
    """Mounts one on ``folder``; at the end everyone whom it holds is let go with an error.

    For other processes only: one that holds its own thread can't even end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    volume = HungVolume(fd)
    server = threading.Thread(target=volume.serve, daemon=True)
    server.start()
    try:
        yield volume
    finally:
        libc.umount2(os.fsencode(folder), _FORCE_DETACH)
        server.join()
        os.close(fd)
