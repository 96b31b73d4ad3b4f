"""What other formats give, and models.yaml written from it; a literal credential doesn't get into it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml

from morpheus_boot.config.redact import Redactor, is_secret_field
from morpheus_boot.manifest.values import CivitaiSource, HuggingFaceSource, ModelSpec, NodeSpec

_CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com"})
_HUGGING_FACE_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_HUGGING_FACE_FILE: Final = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)")
_CIVITAI_VERSION: Final = re.compile(r"/api/download/models/([1-9][0-9]{0,17})/?")
_REFERENCE: Final = re.compile(r"\$\{\w+\}")
_HEAD: Final = """\
# Made from {name}. What each field means: docs/models.md. `pin` fills in digests, sizes and commits.

version: 1

# The volume as bought, so that what does not fit is refused before it is fetched.
# volume: {{size_gb: 20}}
"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line that gives no entry though nothing is wrong with it, and why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A line that held a credential; ``variable`` is to hold it now."""

    line: int
    variable: str


@dataclass(frozen=True, slots=True)
class Imported:
    """Models by their paths, nodes by their names, in the order in which they came.

    URLs are as models.yaml writes them: with ``${NAME}`` where a credential stood.
    """

    models: dict[str, ModelSpec] = field(default_factory=dict)
    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    credentials: list[Credential] = field(default_factory=list)

    def public_url(self, line: int, url: str) -> str:
        """``url`` with ``${NAME}`` for each credential in it, which is noted.

        One of Civitai's goes without replacement: CIVITAI_TOKEN is sent there as a header.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return url  # no URL, as who reads it will say

        def replaced(name: str) -> str:
            variable = re.sub(r"\W", "_", f"{parts.hostname}_{name}").upper()
            self.credentials.append(Credential(line, variable))
            return f"${{{variable}}}"

        user, at, host = parts.netloc.rpartition("@")
        if ":" in user and not _REFERENCE.search(user):
            user = replaced("login")
        fields = []
        for query_field in parts.query.split("&"):
            name, _, value = query_field.partition("=")
            is_literal = is_secret_field(query_field) and not _REFERENCE.search(value)
            if parts.hostname in _CIVITAI_HOSTS and is_secret_field(query_field):
                if is_literal:
                    self.credentials.append(Credential(line, "CIVITAI_TOKEN"))
            else:
                fields.append(f"{name}={replaced(name)}" if is_literal else query_field)
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}", query="&".join(fields)))

    def text(self, name: str) -> str:
        """models.yaml for what came from the file called ``name``; what was left out stands there as comments."""
        return "".join(line + "\n" for line in self._lines(name))

    def _lines(self, name: str) -> Iterator[str]:
        yield from _HEAD.format(name=name).splitlines()
        if self.models:
            yield from ("", "models:")
        for model in self.models.values():
            yield f"  - path: {_yaml(model.path)}"
            yield f"    {_source_line(model)}"
        if self.nodes:
            yield from ("", "custom_nodes:")
        for node in self.nodes.values():
            yield f"  - name: {_yaml(node.name)}"
            yield f"    git: {_yaml(node.git.reveal())}"
            yield f"    ref: {node.ref} # the default branch: it moves"
        redact = Redactor()
        for left_out in self.left_out:
            yield from ("", f"# Left out, line {left_out.line}: {left_out.reason}.")
            yield f"#   {redact(left_out.text)}"


def source_fields(url: str) -> dict[str, Any]:
    """The field that a model at ``url`` has: ``civitai`` or ``huggingface`` where they say the same as the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {"url": url}
    version = _CIVITAI_VERSION.fullmatch(parts.path)
    # Any more of a query may choose another file of the version than its primary one.
    if version and parts.hostname in _CIVITAI_HOSTS and not parts.query:
        return {"civitai": int(version[1])}
    file = _HUGGING_FACE_FILE.fullmatch(parts.path)
    if file and parts.hostname in _HUGGING_FACE_HOSTS and parts.query in {"", "download=true"}:
        repo, revision, path = map(unquote, file.groups())
        return {"huggingface": {"repo": repo, "file": path, "revision": revision}}
    return {"url": url}


def _source_line(model: ModelSpec) -> str:
    match model.source:
        case CivitaiSource(version_id):
            return f"civitai: {version_id}"
        case HuggingFaceSource(repo, file, revision):
            return f"huggingface: {_yaml({'repo': repo, 'file': file, 'revision': revision})}"
        case url:
            return f"url: {_yaml(url.url.reveal())}"


def _yaml(value: object) -> str:
    """``value`` on one line, quoted where YAML wants it so."""
    written: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return written.removesuffix("...\n").rstrip("\n")
