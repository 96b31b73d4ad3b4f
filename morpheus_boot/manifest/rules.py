"""What each kind of text in models.yaml must be: a rule says what is wrong with a text, or None."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from morpheus_boot.config.settings import OWN_COMFYUI_ARGS, may_mean
from morpheus_boot.volume.digests import sha256_in

Rule: TypeAlias = Callable[[str], str | None]

# NAME_MAX of every Linux file system that matters here.
_MAX_NAME_BYTES: Final = 255
# What git-check-ref-format(1) forbids; a leading dash would be an option.
_NO_REF: Final = re.compile(r"^[-/.]|[\s~^:?*\[\\]|\.\.|@\{|//|(/|\.|\.lock)$")
_GIT_SCP: Final = re.compile(r"git@[A-Za-z0-9][A-Za-z0-9.-]*:[^-\s][^\s]*")


def _matching(pattern: str, cause: str) -> Rule:
    """The rule that a text must match ``pattern`` from its begin to its end."""
    return lambda text: None if re.fullmatch(pattern, text) else cause


wrong_repo: Final = _matching(
    r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*", "is not owner/name"
)
wrong_node_name: Final = _matching(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", "is not a safe folder name"
)
wrong_variable: Final = _matching(r"[A-Za-z_][A-Za-z0-9_]*", "is not a variable's name")


def wrong_text(text: str) -> str | None:
    """Every text: not empty, and printable (line breaks and invisible characters come from pasting)."""
    if not text:
        return "is empty"
    return None if text.isprintable() else "holds a character that can't be seen"


def wrong_file(text: str) -> str | None:
    """A relative path with forward slashes, one component or more, that stays below its folder."""
    components = text.split("/")
    faults = (
        ("\\" in text, "holds a backslash, not a /"),
        (text.startswith("/"), "is absolute, not relative"),
        (".." in components, "leaves its folder"),
        ("" in components or "." in components, "has an empty component or a ."),
        (
            any(component != component.strip() for component in components),
            "has a component that begins or ends with a space",
        ),
        (
            any(len(component.encode()) > _MAX_NAME_BYTES for component in components),
            f"has a component longer than {_MAX_NAME_BYTES} bytes",
        ),
    )
    return next((cause for is_wrong, cause in faults if is_wrong), None)


def wrong_model_path(text: str) -> str | None:
    """``folder/file``, with more folders between where there are any, and none hidden at the top."""
    if cause := wrong_file(text):
        return cause
    if text.startswith("."):
        return "begins with a dot"
    return None if "/" in text else "is in no folder"


def wrong_sha256(text: str) -> str | None:
    """64 hex digits, in either case."""
    if sha256_in(text) is not None:
        return None
    return f"has {len(text)} characters" if len(text) != 64 else "is not all hex digits"


def wrong_url(text: str) -> str | None:
    """An http or https URL with a host, or a file URL with an absolute path."""
    scheme = text.partition(":")[0]
    if scheme not in {"http", "https", "file"}:
        return "is not an http, https or file URL"
    parts = _split(text)
    if isinstance(parts, str):
        return parts
    if scheme == "file":
        absolute = parts.path.startswith("/") and parts.netloc in {"", "localhost"}
        return None if absolute else "has no absolute path, as file:///folder/file has"
    return None if parts.hostname else "has no host"


def wrong_git(text: str) -> str | None:
    """What ``git clone`` takes over the network or from a file URL; never an option or a helper's ``ext::``."""
    if text.startswith("git@"):
        return None if _GIT_SCP.fullmatch(text) else "is not git@host:path"
    scheme = text.partition("://")[0]
    if scheme not in {"https", "http", "ssh", "file"}:
        return "is not a Git URL"
    parts = _split(text)
    if isinstance(parts, str):
        return parts
    if scheme != "file" and not re.match(r"[A-Za-z0-9:]", parts.hostname or ""):
        return "has no valid host"
    return None if parts.path.strip("/") else "names no repository"


def _split(url: str) -> SplitResult | str:
    """The parts of a URL, or what is wrong with it."""
    if re.search(r"[\s\\]", url):
        return "holds a space or a backslash (%20 and %5C in a URL)"
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        return "has no valid host and port"
    return parts


def wrong_ref(text: str) -> str | None:
    """A tag, a commit or a branch by a name that git takes."""
    return "is not a name that git takes" if _NO_REF.search(text) else None


def wrong_comfyui_arg(text: str) -> str | None:
    """One argument, and none of those that this program sets."""
    option = text.partition("=")[0]
    if not option.startswith("--"):
        return None
    if " " in option:
        return "is two arguments in one"
    return "is set by this program" if may_mean(text, OWN_COMFYUI_ARGS) else None
