"""The packages that custom nodes need beside ComfyUI's own: found together, installed into one folder, kept as one.

Where their requirements can't be met together, the node that is last by precedence loses: required nodes come before
the others, and within each the order of models.yaml counts.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter
from morpheus_boot.comfyui.custom_nodes.uv import Unsolvable, Uv
from morpheus_boot.errors import ManifestError, MorpheusError, NotSetUp, OriginUnavailable, all_of
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.publish import write_whole

_FILE: Final = "requirements.txt"
_INCLUDE: Final = re.compile(
    r"^\s*(?:-r|--requirements?|-c|--constraints?)[ \t=]*(\S+)", re.MULTILINE
)
_ASKS: Final = re.compile(r"^\s*[^\s#]", re.MULTILINE)
_EDITABLE: Final = re.compile(r"^[ \t]*(?:-e|--editable)[ \t=]+", re.MULTILINE)
_INDEX: Final = re.compile(r"^[ \t]*(?:-i|--index-url)[ \t=]+", re.MULTILINE)
_HERE: Final = re.compile(r"^[ \t]*\.(?=[/\[\s]|$)", re.MULTILINE)
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FORMAT: Final = "2"
_OUTCOME: Final = "outcome.json"
PACKAGES: Final = "packages"


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a custom node asks for: its requirements.txt, as a ``text`` with all that it includes."""

    node: str
    required: bool
    file: Path
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A custom node that ComfyUI does not get, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all requirements together: which nodes are left out, which packages were installed.

    ``lasting`` unless another day may bring what was missing, so that the next boot tries again.
    """

    left_out: tuple[LeftOut, ...] = ()
    packages: tuple[str, ...] = ()
    lasting: bool = True


def read_requirements(node: str, tree: Path, *, required: bool) -> Requirements | None:
    """What the node in the folder ``tree`` asks for; None where that is nothing. Raises OSError.

    The file goes to uv as it is, unless it holds what uv takes otherwise, or not at all: an editable repository, a
    path (relative to its own working directory), an index that stands in the place of the others' (here it comes
    beside them). Then a copy beside it says the same in uv's words.
    """
    file = tree / _FILE
    texts = tuple(_texts(file.resolve(), tree.resolve(), set()))
    if not any(map(_ASKS.search, texts)):
        return None
    for_uv = _INDEX.sub("--extra-index-url ", _EDITABLE.sub("", texts[0]))
    for_uv = _HERE.sub(lambda _: str(tree), for_uv)
    if for_uv != texts[0]:
        file = tree / f".{_FILE}"
        write_whole(file, for_uv.encode(), durable=False)
    return Requirements(node, required, file, "\n".join(texts))


def _texts(file: Path, tree: Path, seen: set[Path]) -> Iterator[str]:
    """The text of ``file``, then those of the files that it includes, without any outside of ``tree``."""
    if file in seen or not file.is_relative_to(tree) or not file.is_file():
        return
    seen.add(file)
    content = file.read_bytes()
    text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig", "replace")
    yield text
    for name in _INCLUDE.findall(text):
        yield from _texts((file.parent / name).resolve(), tree, seen)


def site_key(asked: Iterable[Requirements], python: Interpreter) -> str:
    """What a folder of packages depends on, in 32 hex digits: interpreter, platform, what it holds, what is asked."""
    held = sorted((name, one.version) for name, one in python.held.items())
    texts = [(one.node, one.required, one.text) for one in asked]
    content = json.dumps((_FORMAT, python.identity, held, texts))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def read_outcome(site: Path) -> Outcome:
    """What install_packages() left in ``site``. Raises OSError, ValueError."""
    return from_document(Outcome, (site / _OUTCOME).read_bytes())


def install_packages(asked: Iterable[Requirements], find: Callable[[], Uv], site: Path) -> Outcome:
    """Installs into the folder ``site`` what the nodes need, and leaves the outcome there, too.

    Raises, where a required node needs any:
        ManifestError: its requirements can't be met.
        OriginUnavailable: the package index can't be reached, or uv can't be fetched from it.
        NotSetUp: as ``find`` does.
    And StorageFailed, WaitedTooLong, Stopped, OSError as Uv.install() does.
    """
    in_order = sorted(asked, key=lambda one: not one.required)
    required = [one for one in in_order if one.required]
    packages = site / PACKAGES
    try:
        uv = find()
        uv.install([one.file for one in in_order], packages)
        left_out, lasting = list[LeftOut](), True
    except Unsolvable:
        left_out, lasting = _one_by_one(in_order, uv, packages)
    except (OriginUnavailable, NotSetUp) as error:
        if required:
            _one_by_one(required, find(), packages)
        reason = f"{error.subject}: {error.cause}"
        left_out = [LeftOut(one.node, reason) for one in in_order if not one.required]
        lasting = False
    names = sorted(info.stem for info in packages.glob("*.dist-info"))
    outcome = Outcome(tuple(left_out), tuple(names), lasting)
    (site / _OUTCOME).write_bytes(to_document(outcome))
    return outcome


def _one_by_one(
    asked: Sequence[Requirements], uv: Uv, packages: Path
) -> tuple[list[LeftOut], bool]:
    """Installs for each node that can come to those before it; those that are left out, and whether that lasts."""
    kept: list[Requirements] = []
    left_out: list[LeftOut] = []
    refused: list[MorpheusError] = []
    lasting = True
    for one in asked:
        try:
            uv.install([each.file for each in (*kept, one)], packages)
        except Unsolvable as error:
            reason = f"its requirements can't be met{_beside(kept)}: {error}"
            if one.required:
                kind = ManifestError if error.lasting else OriginUnavailable
                mend = "take another ref of it or of the other side, or say required: false"
                refused.append(kind(f"custom node {one.node}", reason, mend))
            left_out.append(LeftOut(one.node, reason))
            lasting &= error.lasting
        except OriginUnavailable as error:
            if one.required:
                raise
            left_out.append(LeftOut(one.node, f"{error.subject}: {error.cause}"))
            lasting = False
        else:
            kept.append(one)
    if refused:
        raise all_of(refused)
    return left_out, lasting


def _beside(kept: Sequence[Requirements]) -> str:
    return f" beside those of {', '.join(one.node for one in kept)}" if kept else ""
