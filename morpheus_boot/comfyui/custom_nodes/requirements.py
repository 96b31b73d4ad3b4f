"""What custom nodes require, from their requirements.txt, held against what ComfyUI's Python holds."""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter

_FILE: Final = "requirements.txt"
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_CONTINUED: Final = re.compile(r"\\\r?\n")
_INCLUDE: Final = re.compile(r"(?:-r|--requirement)(?:\s+|=)(.+)")
# Places to look in besides the index; an --index-url would change it for all the others.
_SOURCE: Final = re.compile(r"(--extra-index-url|--find-links|-f|--pre)\b")
_PER_REQUIREMENT: Final = re.compile(r"\s--?\w.*$")
_DIRECT: Final = re.compile(r"(git\+)?(https?|ssh)://\S+")
_EGG: Final = re.compile(r"#.*\begg=([A-Za-z0-9][A-Za-z0-9._-]*)")
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The lines of one node's requirements.txt, those that it includes by -r among them; ``name`` is the node's."""

    name: str
    required: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """What one node's requirements come to.

    ``missing``: requirements that ComfyUI's Python does not meet; ``sources``: pip's options that say where else to
    look. ``conflicts`` and ``ignored`` are sentences: what it holds in another version, and lines that are not taken.
    """

    node: str
    missing: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_asked(name: str, tree: Path, *, required: bool) -> Asked:
    """The node's requirements, unparsed; none where it has no requirements.txt. Raises OSError."""
    return Asked(name, required, tuple(_lines(tree / _FILE, tree, frozenset())))


def _lines(file: Path, tree: Path, seen: frozenset[Path]) -> Iterator[str]:
    file = file.resolve()
    if file in seen or not file.is_relative_to(tree.resolve()) or not file.is_file():
        return
    text = _CONTINUED.sub(" ", _decoded(file.read_bytes()))
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw).strip()
        if include := _INCLUDE.fullmatch(line):
            yield from _lines(file.parent / include[1].strip(), tree, seen | {file})
        elif line:
            yield line


def _decoded(content: bytes) -> str:
    encoding = next((name for bom, name in _BOMS if content.startswith(bom)), "utf-8")
    return content.decode(encoding, errors="replace")


def needs_of(asked: Asked, python: Interpreter) -> Needs:
    """Sorts a node's lines by what ComfyUI's Python holds; asks nobody."""
    missing, sources, conflicts, ignored = [], [], [], []
    for line in asked.lines:
        if _SOURCE.match(line):
            sources.append(line)
            continue
        text = _PER_REQUIREMENT.sub("", line)
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            if _DIRECT.fullmatch(text) is None:
                ignored.append(f"{_FILE}: '{line}' is not taken")
            elif not _is_held(text, python):
                missing.append(text)
            continue
        if requirement.marker and not requirement.marker.evaluate(dict(python.markers)):
            continue
        held = python.held.get(canonicalize_name(requirement.name))
        if held is None or (requirement.extras and requirement.url is None):
            missing.append(str(requirement))
        elif _is_version(held) and not requirement.specifier.contains(held, prereleases=True):
            conflicts.append(
                f"it asks for {text}, ComfyUI's Python holds {requirement.name} {held}"
            )
    return Needs(asked.name, tuple(missing), tuple(sources), tuple(conflicts), tuple(ignored))


def _is_version(text: str) -> bool:
    """Whether ``text`` is a version as PEP 440 knows them; old distributions carry others."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _is_held(url: str, python: Interpreter) -> bool:
    egg = _EGG.search(url)
    return egg is not None and canonicalize_name(egg[1]) in python.held


def constraints_of(held: Mapping[str, str]) -> str:
    """All that ComfyUI's Python holds, as a constraints file: nothing may come in another version."""
    pairs = sorted((name, version) for name, version in held.items() if _is_version(version))
    return "".join(f"{name}=={version}\n" for name, version in pairs)
