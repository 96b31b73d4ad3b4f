"""What other formats give, and models.yaml written from it; a literal credential doesn't get into it."""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml
from pydantic import TypeAdapter

from morpheus_boot.config.redact import Redactor, is_secret_field
from morpheus_boot.manifest.document import printable
from morpheus_boot.manifest.values import CIVITAI_HOSTS, ModelSpec, NodeSpec

_HUGGING_FACE_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_HUGGING_FACE_FILE: Final = re.compile(
    r"/(?:(dataset|space)s/)?([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)"
)
_CIVITAI_VERSION: Final = re.compile(r"/api/download/models/([1-9][0-9]{0,17})/?")
_REFERENCE: Final = re.compile(r"\$\{\w+\}")
_MODEL: Final = TypeAdapter(ModelSpec)
_NODE: Final = TypeAdapter(NodeSpec)
_HEAD: Final = """\
# Made from {name}. What each field means: docs/models.md.
# `pin` fills in digests, sizes and commits: a ref that is HEAD, the default branch, moves.

version: 1

# The volume as bought, so that what does not fit is refused before it is fetched.
# volume: {{size_gb: 20}}
"""


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said of a line: that it is left out, as ``text``, or that it held a credential."""

    line: int
    says: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """Entries as models.yaml has them, models by their paths, nodes by their names, in the order in which they came."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def put_model(self, entry: dict[str, Any]) -> bool:
        """Takes a model in; False where another one has its path. Raises pydantic's ValidationError."""
        _MODEL.validate_python(entry)
        return self.models.setdefault(entry["path"], entry) == entry

    def put_node(self, entry: dict[str, Any]) -> bool:
        """Takes a node in; False where another one has its name. Raises pydantic's ValidationError."""
        _NODE.validate_python(entry)
        return self.nodes.setdefault(entry["name"], entry) == entry

    def public_url(self, line: int, url: str) -> str:
        """``url`` with ``${NAME}`` for each credential in it, which is noted.

        One of Civitai's goes without replacement: CIVITAI_TOKEN is sent there as a header.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return url  # no URL, as whoever reads it will say

        def replaced(name: str) -> str:
            in_name = re.sub(r"\W", "_", f"{parts.hostname}_{name}").upper()
            variable = "CIVITAI_TOKEN" if parts.hostname in CIVITAI_HOSTS else in_name
            how = "which whoever had this list has: renew it, and set"
            self.notes.append(Note(line, f"holds a credential, {how} {variable} to it"))
            return f"${{{variable}}}"

        user, at, host = parts.netloc.rpartition("@")
        if ":" in user and not _REFERENCE.search(user):
            user = replaced("login")
        fields = []
        for query_field in parts.query.split("&"):
            name, _, value = query_field.partition("=")
            is_secret = is_secret_field(query_field)
            if is_secret and not _REFERENCE.search(value):
                query_field = f"{name}={replaced(name)}"  # noqa: PLW2901 - the same field, public
            if not (is_secret and parts.hostname in CIVITAI_HOSTS):
                fields.append(query_field)
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}", query="&".join(fields)))

    def text(self, name: str) -> str:
        """models.yaml for what came from the file called ``name``; what was left out stands there as comments."""
        parts = [_HEAD.format(name=printable(name))]
        for key, entries in (("models", self.models), ("custom_nodes", self.nodes)):
            if entries:
                parts.append(_yaml({key: list(entries.values())}))
        redact = Redactor()
        parts += [
            f"# Line {note.line} {note.says}.\n#   {printable(redact(note.text))}\n"
            for note in self.notes
            if note.text
        ]
        return "\n".join(parts)


def source_fields(url: str) -> dict[str, Any]:
    """The field that a model at ``url`` has: ``civitai`` or ``huggingface`` where they say the same as the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {"url": url}
    version = _CIVITAI_VERSION.fullmatch(parts.path)
    # Any more of a query may choose another file of the version than its primary one.
    if version and parts.hostname in CIVITAI_HOSTS and not parts.query:
        return {"civitai": int(version[1])}
    file = _HUGGING_FACE_FILE.fullmatch(parts.path)
    if file and parts.hostname in _HUGGING_FACE_HOSTS and parts.query in {"", "download=true"}:
        repo, revision, path = map(unquote, file.groups()[1:])
        kind = {"type": file[1]} if file[1] else {}
        return {"huggingface": {"repo": repo, "file": path, "revision": revision, **kind}}
    return {"url": url}


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=float("inf"))
    return text
