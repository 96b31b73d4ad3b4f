"""Looks at a model's first and last bytes: what its type proves about it, without any digest."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 4096
# A zip ends with its end-of-central-directory record (22 bytes) and a comment of at most 65,535.
_ZIP_TAIL_BYTES: Final = 22 + 65535
_ZIP_END: Final = b"PK\x05\x06"
_MAX_SAFETENSORS_HEADER: Final = 100_000_000  # safetensors' own limit

_SAFETENSORS: Final = (".safetensors", ".sft")
_TORCH: Final = (".pth", ".pt", ".bin", ".ckpt")
_TEXTUAL: Final = (".json", ".yaml", ".yml", ".txt", ".md", ".xml", ".html", ".csv")


class TooShort(str):
    """The complaint that a file ends before its header says: no loader reads it, whatever digest was promised."""

    __slots__ = ()


def complaint(path: Path, name: str) -> str | None:
    """What is wrong with the file at ``path`` that is to be the model ``name``, or None.

    But for TooShort, a digest that is promised and agrees outweighs it.

    Safetensors must parse and add up to the file's length; .pth, .pt, .bin and .ckpt must begin as a zip or a
    pickle, and a zip must have its end record; nothing but a textual type may be HTML, XML or JSON.

    Raises OSError.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
        suffix = Path(name).suffix.lower()
        if size_bytes == 0:
            return TooShort("it is empty")
        kind = None if suffix in _TEXTUAL else _text_kind(head)
        if suffix in _SAFETENSORS:
            # Parsed first: the length that it begins with may happen to look like text.
            wrong = _safetensors_complaint(file.read, head, size_bytes)
            return type(wrong)(f"it is {kind}, not a model") if wrong and kind else wrong
        if kind:
            return f"it is {kind}, not a model"
        if head.startswith(b"PK"):
            file.seek(max(0, size_bytes - _ZIP_TAIL_BYTES))
            return _zip_complaint(file.read(), size_bytes)
        if suffix in _TORCH and not _is_pickle(head):
            return "it begins neither as a zip nor as a pickle"
    return None


def proves_completeness(path: Path, name: str) -> bool:
    """Whether this file's type shows, where complaint() has none, that nothing is missing at its end.

    A safetensors header adds up to the length, a zip has its end record; a bare pickle shows neither.
    Raises OSError.
    """
    if Path(name).suffix.lower() in _SAFETENSORS:
        return True
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _text_kind(head: bytes) -> str | None:
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if begin.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML)"
    if begin.startswith((b"<?xml", b"<error")):
        return "XML"
    if begin.startswith(b'{"') or (begin.startswith(b"{") and begin[1:].lstrip().startswith(b'"')):
        return "JSON"
    if begin.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return None


def _safetensors_complaint(
    read: Callable[[int], bytes], head: bytes, size_bytes: int
) -> str | None:
    if len(head) < 8:
        return TooShort("it is too short for a safetensors header")
    (header_bytes,) = struct.unpack("<Q", head[:8])
    if header_bytes > min(_MAX_SAFETENSORS_HEADER, size_bytes - 8):
        return TooShort("its safetensors header does not fit into the file")
    raw = head[8 : 8 + header_bytes]
    raw += read(header_bytes - len(raw))
    try:
        header = json.loads(raw)
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
        expected = 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "its safetensors header does not parse"
    if expected != size_bytes:
        kind = TooShort if size_bytes < expected else str
        return kind(
            f"its safetensors header adds up to {expected} bytes, the file has {size_bytes}"
        )
    return None


def _zip_complaint(tail: bytes, size_bytes: int) -> str | None:
    at = tail.rfind(_ZIP_END)
    if at < 0 or at + 22 > len(tail):
        return TooShort("its zip archive has no end record")
    directory_bytes, directory_at = struct.unpack("<LL", tail[at + 12 : at + 20])
    end_at = size_bytes - len(tail) + at
    zip64 = 0xFFFFFFFF in (directory_bytes, directory_at)
    if not zip64 and directory_at + directory_bytes > end_at:
        return "its zip archive's directory lies outside the file"
    return None


def _is_pickle(head: bytes) -> bool:
    # Protocol 2 and up begin with PROTO and a version; torch's old format is such a pickle too.
    return len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6)
