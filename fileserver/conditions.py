"""Conditional requests and ranges: what a request's headers ask of a file (RFC 9110, 13 and 14)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

from morpheus_boot.jobs.files import OpenFile

_ONE_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_ETAG: Final = re.compile(r'(?:W/)?"[^"]*"')
# No file is so long; more digits are an attack on int().
_MOST_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class Selection:
    """What to answer: ``status``, and the bytes from ``first`` on, ``length`` of them."""

    status: int
    first: int
    length: int


def etag_of(file: OpenFile) -> str:
    """A strong validator: another inode, size or mtime is another file."""
    return f'"{file.inode:x}-{file.size_bytes:x}-{file.mtime_ns:x}"'


def last_modified_of(file: OpenFile) -> str:
    """The file's mtime as an HTTP date."""
    return formatdate(file.mtime_ns // 10**9, usegmt=True)


def select(method: str, headers: Mapping[str, str], file: OpenFile) -> Selection:
    """What ``headers`` ask of ``file``: all of it (200), a range (206), or 304, 412, 416.

    Several ranges at once are answered with the whole file, which RFC 9110 allows.
    """
    failed = _precondition(method, headers, file)
    if failed is not None:
        return Selection(failed, 0, 0)
    whole = Selection(200, 0, file.size_bytes)
    asked = headers.get("range")
    if asked is None or method != "GET" or not _range_holds(headers, file):
        return whole
    match = _ONE_RANGE.fullmatch(asked)
    if match is None or max(map(len, match.groups())) > _MOST_DIGITS:
        return whole
    return _range(match[1], match[2], file.size_bytes) or whole


def _range(first: str, last: str, size_bytes: int) -> Selection | None:
    if not first:
        if not last:
            return None
        length = min(int(last), size_bytes)
        return Selection(206 if length else 416, size_bytes - length, length)
    begin, end = int(first), int(last) if last else size_bytes - 1
    if last and end < begin:
        return None
    if begin >= size_bytes:
        return Selection(416, 0, 0)
    return Selection(206, begin, min(end, size_bytes - 1) - begin + 1)


def _precondition(method: str, headers: Mapping[str, str], file: OpenFile) -> int | None:
    """304 or 412, in the order of RFC 9110, 13.2.2; None where the file is to be sent."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None:
        if not _names(match, etag_of(file), strong=True):
            return 412
    elif (since := _date(headers.get("if-unmodified-since"))) is not None and _mtime(file) > since:
        return 412
    if none_match is not None:
        if _names(none_match, etag_of(file), strong=False):
            return 304
    elif (
        method in {"GET", "HEAD"}
        and (since := _date(headers.get("if-modified-since"))) is not None
        and _mtime(file) <= since
    ):
        return 304
    return None


def _range_holds(headers: Mapping[str, str], file: OpenFile) -> bool:
    condition = headers.get("if-range")
    if condition is None:
        return True
    if condition.lstrip().startswith(('"', "W/")):
        return condition.strip() == etag_of(file)
    # A date says little about a file that changed within its second: it must be exactly ours.
    return condition.strip() == last_modified_of(file)


def _names(condition: str, etag: str, *, strong: bool) -> bool:
    if condition.strip() == "*":
        return True
    tags = _ETAG.findall(condition)
    return etag in (tags if strong else [tag.removeprefix("W/") for tag in tags])


def _mtime(file: OpenFile) -> datetime:
    return datetime.fromtimestamp(file.mtime_ns // 10**9, UTC)


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
