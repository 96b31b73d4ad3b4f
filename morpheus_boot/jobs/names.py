"""The names that come from outside, parsed once: an object of these types is safe wherever it is used.

Each type checks itself when it is made, so none can hold what would leave its folder.
"""

import re
import unicodedata
import uuid
from dataclasses import dataclass
from typing import Final

from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.jobs.json_values import plain_text
from morpheus_boot.volume.layout import is_job_id

# What Linux takes for one name (NAME_MAX), MooseFS too.
NAME_MAX_BYTES: Final = 255
# A sub_dir is a folder or a few, and an output a few folders deep: more is a mistake or an attack.
MAX_DEPTH: Final = 16

# What Windows, a shell glob or a URL takes for something else than a part of a name.
_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
_WINDOWS_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE
)
# The usual case, which needs no look at each character.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9_-])?")
# Invisible, yet part of the spelling of Persian, of Indic scripts and of many emoji.
_JOINERS: Final = frozenset("\u200c\u200d")
_LONGEST_SUFFIX_BYTES: Final = 32


class InvalidName(MorpheusError):
    """A name from outside that can't name what it should."""

    exit_code = Exit.USAGE


@dataclass(frozen=True, slots=True)
class JobId:
    """The name of one job's folder below jobs/."""

    text: str

    def __post_init__(self) -> None:
        if not is_job_id(self.text):
            raise InvalidName(
                "worker_job_id",
                f"{_shown(self.text)} is not a job id",
                "use 1 to 128 of A-Z a-z 0-9 . _ -, begin with a letter or digit, "
                "and take none of ComfyUI's folder names",
            )

    @classmethod
    def new(cls) -> "JobId":
        """One that nobody has used."""
        return cls(str(uuid.uuid4()))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class FileName:
    """The name under which an uploaded file is kept: one path component, safe on every system.

    ``FileName.from_client`` makes one of whatever a client calls its file.
    """

    text: str

    def __post_init__(self) -> None:
        if _safe(self.text) != self.text:
            raise InvalidName(
                "file name",
                f"{_shown(self.text)} can't be kept as it is",
                f"{_shown(_safe(self.text))} can",
            )

    @classmethod
    def from_client(cls, text: str) -> "FileName":
        """The safe name closest to ``text``, which may be a path of the client's own system.

        Letters of any language stay, in NFC; separators, control and invisible characters, and what
        Windows refuses, become ``_`` or go.
        """
        return cls(_safe(re.split(r"[/\\]", text.rstrip("/\\"))[-1]))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class SubDir:
    """Folders below a job's input/; none for input/ itself. Each is as safe as a FileName."""

    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parts) > MAX_DEPTH:
            raise InvalidName(
                "sub_dir", f"it is {len(self.parts)} folders deep", f"{MAX_DEPTH} are allowed"
            )
        for part in self.parts:
            if not part or _safe(part) != part:
                raise InvalidName(
                    "sub_dir",
                    f"{_shown(part)} is not the name of a folder",
                    "give folder names with / between them, below the job's input",
                )

    @classmethod
    def parse(cls, text: str) -> "SubDir":
        """``a/b`` as two folders; empty means none, and one / at the end is allowed."""
        normal = unicodedata.normalize("NFC", text).removesuffix("/")
        return cls(tuple(normal.split("/")) if text else ())

    def __str__(self) -> str:
        return "/".join(self.parts)


@dataclass(frozen=True, slots=True)
class OutputPath:
    """A file below a job's output/, as ComfyUI or a node named it; any name that Linux allows.

    Its text is what can be shown: what is no UTF-8 in a name is U+FFFD there, and stays what it is in ``parts``.
    """

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.parts) <= MAX_DEPTH or not all(map(_is_component, self.parts)):
            raise InvalidName(
                "file name",
                f"{_shown(str(self))} does not name a file of a job",
                "give its path below the job's output",
            )

    @classmethod
    def parse(cls, text: str) -> "OutputPath":
        """``a/b.png`` as the file b.png in the folder a."""
        return cls(tuple(text.split("/")))

    @property
    def name(self) -> str:
        """The last component."""
        return self.parts[-1]

    def __str__(self) -> str:
        return plain_text("/".join(self.parts))


def _is_component(part: str) -> bool:
    if part in {"", ".", ".."} or "/" in part or "\0" in part:
        return False
    try:
        # Names that are no UTF-8 come out of the file system as surrogates, and go back in as such.
        return len(part.encode(errors="surrogateescape")) <= NAME_MAX_BYTES
    except UnicodeEncodeError:
        return False


def _safe(text: str) -> str:
    if _PLAIN.fullmatch(text) and not _WINDOWS_DEVICE.match(text):
        return text
    # Dropping one character can make the next ones compose, or bare: until nothing changes.
    while (cleaned := _cleaned(text)) != text:
        text = cleaned
    return text


def _cleaned(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    kept = "".join(_safe_character(text, i) for i in range(len(text)))
    # Windows drops dots and spaces at the end, and a dot in front hides a file.
    kept = kept.strip(" .") or "file"
    return _cut(f"_{kept}" if _WINDOWS_DEVICE.match(kept) else kept)


def _safe_character(text: str, at: int) -> str:
    character = text[at]
    category = unicodedata.category(character)
    if character in _JOINERS:
        neighbours = text[max(0, at - 1) : at] + text[at + 1 : at + 2]
        return character if len(neighbours) == 2 and not neighbours.isascii() else ""
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    if category[0] == "C" or category in {"Zl", "Zp"} or character in _FORBIDDEN:
        return "_"
    # Full-width and other look-alikes become the real separator where a client folds them.
    folded = unicodedata.normalize("NFKC", character)
    tricky = folded != character and any(c == "." or c in _FORBIDDEN for c in folded)
    return "_" if tricky else character


def _cut(name: str) -> str:
    if len(name.encode()) <= NAME_MAX_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix.encode()) > _LONGEST_SUFFIX_BYTES:
        stem, dot, suffix = name, "", ""
    room = NAME_MAX_BYTES - len((dot + suffix).encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{stem.rstrip('. ')}{dot}{suffix}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
