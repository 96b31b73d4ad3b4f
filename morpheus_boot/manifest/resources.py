"""The old scripts' resource list, read into what models.yaml is read into.

One resource a line: ``GIT,name,url`` is a custom node, ``URL_AUTH,folder/file,url`` a model at a URL, and
``MODEL,folder,owner/repo,file`` a file of a repository on Hugging Face.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import ManifestError, all_of
from morpheus_boot.manifest import rules
from morpheus_boot.manifest.credentials import CIVITAI_HOSTS, public_url
from morpheus_boot.manifest.tree import shown
from morpheus_boot.manifest.values import (
    CivitaiSource,
    HuggingFaceSource,
    ModelSpec,
    NodeSpec,
    Source,
    UrlSource,
)

_HUGGING_FACE_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_HUGGING_FACE_FILE: Final = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)")
_CIVITAI_VERSION: Final = re.compile(r"/api/download/models/([1-9][0-9]{0,17})/?")
# The list names no version of a node, and not every repository's branch is called main.
_DEFAULT_BRANCH: Final = "HEAD"
_FORMS: Final = "GIT,name,url or URL_AUTH,folder/file,url or MODEL,folder,owner/repo,file"


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
class Resources:
    """A list, in the order of its lines; no two models have one path, no two nodes one name.

    URLs are as models.yaml writes them: with ``${NAME}`` where a credential stood.
    """

    models: tuple[ModelSpec, ...]
    nodes: tuple[NodeSpec, ...]
    left_out: tuple[LeftOut, ...]
    credentials: tuple[Credential, ...]


def read_resources(name: str, content: bytes) -> Resources:
    """Reads a list that errors call ``name``.

    Raises:
        ManifestError: its one mistake, or that it is not UTF-8.
        SeveralErrors: of ManifestError, one a mistake, in the order of their lines.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{name} line {line}", "is not UTF-8", "save it as UTF-8") from error
    reading = _Reading(name)
    for number, written in enumerate(map(str.strip, text.splitlines()), 1):
        if written and not written.startswith("#"):
            reading.take(number, written)
    if reading.mistakes:
        raise all_of(reading.mistakes)
    return Resources(
        tuple(reading.models.values()),
        tuple(reading.nodes.values()),
        tuple(reading.left_out),
        tuple(reading.credentials),
    )


class _Wrong(Exception):
    """A line's mistake: what is wrong, how, and the mend."""

    def __init__(self, subject: str, cause: str, mend: str) -> None:
        super().__init__(subject, cause, mend)
        self.subject = subject
        self.cause = cause
        self.mend = mend


class _Reading:
    """What the lines so far have given."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.models: dict[str, ModelSpec] = {}
        self.nodes: dict[str, NodeSpec] = {}
        self.left_out: list[LeftOut] = []
        self.credentials: list[Credential] = []
        self.mistakes: list[ManifestError] = []

    def take(self, number: int, written: str) -> None:
        kind, *fields = (field.strip() for field in written.split(","))
        try:
            match kind, fields:
                case "GIT", [name, url]:
                    self._put_node(number, written, name, url)
                case "URL_AUTH", [_, url] if "://" not in url:
                    self._leave_out(number, written, f"{shown(url)} is no URL")
                case "URL_AUTH", [path, url]:
                    url = self._public(number, url, rules.wrong_url)
                    self._put_model(number, written, path, _source_at(url))
                case "MODEL", [folder, repo, file]:
                    path = f"{folder}/{file.rpartition('/')[2]}"
                    self._put_model(number, written, path, _hugging_face_source(repo, file))
                case _:
                    raise _Wrong(shown(written), "is no resource", f"write {_FORMS}")
        except _Wrong as wrong:
            subject = f"{self._name} line {number}, {wrong.subject}"
            self.mistakes.append(ManifestError(subject, wrong.cause, wrong.mend))

    def _put_model(self, number: int, written: str, path: str, source: Source) -> None:
        path = _checked(path, rules.wrong_model_path, "a folder of ComfyUI's and a file in it")
        model = ModelSpec(
            path=path,
            source=source,
            sha256=None,
            size_bytes=None,
            required=True,
            preload=False,
            links=(),
            line=number,
        )
        first = self.models.setdefault(path, model)
        if first.source != source:
            self._leave_out(number, written, f"line {first.line} has this path, from elsewhere")

    def _put_node(self, number: int, written: str, name: str, url: str) -> None:
        name = _checked(name, rules.wrong_node_name, "a folder's name")
        git = Secret(self._public(number, url, rules.wrong_git))
        node = NodeSpec(name=name, git=git, ref=_DEFAULT_BRANCH, required=True, line=number)
        first = self.nodes.setdefault(name, node)
        if first.git != git:
            self._leave_out(number, written, f"line {first.line} has this name, from elsewhere")

    def _public(self, number: int, url: str, rule: rules.Rule) -> str:
        public = public_url(_checked(url, rule, "an http, https or file URL"))
        self.credentials += [Credential(number, variable) for variable in public.variables]
        return public.text

    def _leave_out(self, number: int, written: str, reason: str) -> None:
        self.left_out.append(LeftOut(number, written, reason))


def _checked(text: str, rule: rules.Rule, wanted: str) -> str:
    cause = rules.wrong_text(text) or rule(text)
    if cause:
        raise _Wrong(shown(text), cause, f"give {wanted}")
    return text


def _hugging_face_source(repo: str, file: str, revision: str = "main") -> HuggingFaceSource:
    return HuggingFaceSource(
        _checked(repo, rules.wrong_repo, "the repository as owner/name"),
        _checked(file, rules.wrong_file, "the file's path in its repository"),
        revision,
    )


def _source_at(url: str) -> Source:
    """``civitai`` or ``huggingface`` where they say the same as the URL."""
    parts = urlsplit(url)
    version = _CIVITAI_VERSION.fullmatch(parts.path)
    # Any more of a query may choose another file of the version than its primary one.
    if version and parts.hostname in CIVITAI_HOSTS and not parts.query:
        return CivitaiSource(int(version[1]))
    file = _HUGGING_FACE_FILE.fullmatch(parts.path)
    if file and parts.hostname in _HUGGING_FACE_HOSTS and parts.query in {"", "download=true"}:
        return _hugging_face_source(file[1], unquote(file[3]), unquote(file[2]))
    return UrlSource(Secret(url))
