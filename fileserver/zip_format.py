"""The zip format, stored and with zip64 throughout: every byte's place is known before the first is read.

APPNOTE 6.3.10 (pkware.com). A local header says sizes and leaves the CRC to the data descriptor behind
the file, as it is known only then.
"""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DESCRIPTOR_FOLLOWS: Final = 1 << 3
_UTF8: Final = 1 << 11
_VERSION: Final = 45  # zip64
_UNIX: Final = 3 << 8
_REGULAR_0644: Final = 0o100644 << 16
_IN_EXTRA_32: Final = 0xFFFFFFFF
_IN_EXTRA_16: Final = 0xFFFF

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")
_LOCAL_EXTRA: Final = struct.Struct("<HHQQ")
_DESCRIPTOR: Final = struct.Struct("<IIQQ")
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_CENTRAL_EXTRA: Final = struct.Struct("<HHQQQ")
_END64: Final = struct.Struct("<IQHHIIQQQQ")
_LOCATOR: Final = struct.Struct("<IIQI")
_END: Final = struct.Struct("<IHHHHIIH")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive; ``crc`` is known when it has been read."""

    name: bytes
    size_bytes: int
    mtime_s: int
    offset: int = 0
    crc: int = 0

    @property
    def _when(self) -> tuple[int, int]:
        """DOS time and date: local without a zone, from 1980 on, in steps of two seconds; here UTC."""
        at = time.gmtime(max(315532800, min(self.mtime_s, 4354819198)))
        return (
            at.tm_hour << 11 | at.tm_min << 5 | at.tm_sec // 2,
            (at.tm_year - 1980) << 9 | at.tm_mon << 5 | at.tm_mday,
        )

    def local_header(self) -> bytes:
        """What stands before the file's bytes."""
        extra = _LOCAL_EXTRA.pack(1, 16, self.size_bytes, self.size_bytes)
        fixed = _LOCAL.pack(
            0x04034B50,
            _VERSION,
            _DESCRIPTOR_FOLLOWS | _UTF8,
            0,
            *self._when,
            0,
            _IN_EXTRA_32,
            _IN_EXTRA_32,
            len(self.name),
            len(extra),
        )
        return fixed + self.name + extra

    def descriptor(self) -> bytes:
        """What stands behind them."""
        return _DESCRIPTOR.pack(0x08074B50, self.crc, self.size_bytes, self.size_bytes)

    def central_header(self) -> bytes:
        """Its entry in the directory at the archive's end."""
        extra = _CENTRAL_EXTRA.pack(1, 24, self.size_bytes, self.size_bytes, self.offset)
        fixed = _CENTRAL.pack(
            0x02014B50,
            _UNIX | _VERSION,
            _VERSION,
            _DESCRIPTOR_FOLLOWS | _UTF8,
            0,
            *self._when,
            self.crc,
            _IN_EXTRA_32,
            _IN_EXTRA_32,
            len(self.name),
            len(extra),
            0,
            0,
            0,
            _REGULAR_0644,
            _IN_EXTRA_32,
        )
        return fixed + self.name + extra

    @property
    def stored_bytes(self) -> int:
        """What it takes up before the directory."""
        fixed = _LOCAL.size + _LOCAL_EXTRA.size + _DESCRIPTOR.size
        return fixed + len(self.name) + self.size_bytes

    @property
    def listed_bytes(self) -> int:
        """What it takes up in the directory."""
        return _CENTRAL.size + _CENTRAL_EXTRA.size + len(self.name)


def archive_bytes(members: Sequence[Member]) -> int:
    """The archive's length, from sizes and names alone."""
    ends = _END64.size + _LOCATOR.size + _END.size
    return ends + sum(member.stored_bytes + member.listed_bytes for member in members)


def directory(members: Sequence[Member]) -> bytes:
    """The archive's end: the directory of ``members``, which have their offsets and CRCs, and the end records."""
    listed = b"".join(member.central_header() for member in members)
    begin = sum(member.stored_bytes for member in members)
    count = len(members)
    end64 = _END64.pack(
        0x06064B50,
        _END64.size - 12,
        _UNIX | _VERSION,
        _VERSION,
        0,
        0,
        count,
        count,
        len(listed),
        begin,
    )
    locator = _LOCATOR.pack(0x07064B50, 0, begin + len(listed), 1)
    end = _END.pack(0x06054B50, 0, 0, _IN_EXTRA_16, _IN_EXTRA_16, _IN_EXTRA_32, _IN_EXTRA_32, 0)
    return listed + end64 + locator + end
