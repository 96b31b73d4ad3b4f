"""Hugging Face's hub as huggingface_hub speaks to it; ``HF_ENDPOINT`` is the ``url`` of its origin.

The protocol is the one that huggingface_hub 2.4.0 reads (file_download.get_hf_file_metadata,
utils._http.hf_raise_for_status): metadata on the redirect, errors by X-Error-Code.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final
from urllib.parse import quote

from tests.testbed.content import Content, read_all, sha256
from tests.testbed.exchange import Reply, Request, plain, resource_of
from tests.testbed.origin import Origin
from tests.testbed.storage import SignedStorage

READER: Final = "hf_testbedreaderaaaaaaaaaaaaaaaaaa"  # may read everything
STRANGER: Final = (
    "hf_testbedstrangeraaaaaaaaaaaaaaaa"  # an account that may read public repositories alone
)

_RESOLVE: Final = re.compile(
    r"/(?P<repo>(?:(?:datasets|spaces)/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)
_CACHE: Final = "/api/resolve-cache/models/"


class Access(Enum):
    """Who may read a repository."""

    PUBLIC = "public"
    GATED = "gated"


@dataclass(frozen=True, slots=True)
class _File:
    content: Content
    etag: str
    path: str
    sha256: str | None = None
    xet_hash: str | None = None


@dataclass(frozen=True, slots=True)
class _Repository:
    access: Access
    revisions: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, dict[str, _File]] = field(default_factory=dict)


class HubStandIn:
    """Repositories with files; LFS and Xet files lie in ``storage``, under another host."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.storage = SignedStorage(origin, "/cdn/")
        self._repositories: dict[str, _Repository] = {}
        origin.serve_below("/", self._answer)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return self.origin.url

    def add(
        self,
        repo: str,
        file: str,
        content: Content,
        *,
        access: Access = Access.PUBLIC,
        revision: str = "main",
        lfs: bool = True,
        xet: bool = False,
        etag: str | None = None,
    ) -> str:
        """Adds or replaces a file; ``revision`` then stands for a new commit. ``lfs`` False: it lies in git,
        with ``etag`` in the place of its own.

        Returns the path of its bytes, which ``origin.misbehave`` and ``origin.count`` know it by.
        """
        found = self._repositories.setdefault(repo, _Repository(access))
        before = found.revisions.get(revision, "")
        digest = sha256(content)
        commit = _sha1(f"{before} {repo} {file} {digest}".encode())
        if lfs:
            path = self.storage.put(f"{repo}/{digest}", resource_of(content))
            etag = _git_etag(f"oid sha256:{digest}".encode())  # that of its pointer in git
            made = _File(content, etag, path, digest, digest[::-1] if xet else None)
        else:
            path = f"{_CACHE}{repo}/{commit}/{file}"
            made = _File(content, etag or _git_etag(read_all(content)), path)
            resource = resource_of(content, etag=made.etag)
            self.origin.serve(path, replace(resource, headers={"X-Repo-Commit": commit}))
        found.revisions[revision] = commit
        found.snapshots[commit] = {**found.snapshots.get(before, {}), file: made}
        return path

    def commit(self, repo: str, revision: str = "main") -> str:
        """The commit that a revision stands for."""
        return self._repositories[repo].revisions[revision]

    def _answer(self, request: Request) -> Reply | None:
        if request.path == "/api/whoami-v2":
            return _who(request)
        match = _RESOLVE.fullmatch(request.path)
        if match is None:
            return None
        repository = self._repositories.get(match["repo"])
        if (refusal := _refusal(repository, request)) is not None:
            return refusal
        assert repository is not None
        commit = repository.revisions.get(match["revision"], match["revision"])
        if commit not in repository.snapshots:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {match['revision']}")
        file = repository.snapshots[commit].get(match["file"])
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found")
        return self._redirect(file, commit)

    def _redirect(self, file: _File, commit: str) -> Reply:
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": file.etag}
        if file.sha256 is None:
            # Relative, on the same host: huggingface_hub follows it, and takes the metadata from there.
            return plain(307, headers={**headers, "Location": quote(file.path)})
        headers |= {
            "X-Linked-ETag": f'"{file.sha256}"',
            "X-Linked-Size": str(file.content.size_bytes),
            "Location": self.storage.sign(file.path),
        }
        if file.xet_hash is not None:
            headers["X-Xet-Hash"] = file.xet_hash
            headers["Link"] = f'<{self.url}/api/xet-read-token/{commit}>; rel="xet-auth"'
        return plain(302, "Found. Redirecting", headers=headers)


def _who(request: Request) -> Reply:
    name = {READER: "reader", STRANGER: "stranger"}.get(_token(request) or "")
    if name is None:
        return _error(401, None, "Invalid username or password.")
    return plain(200, json.dumps({"type": "user", "name": name}))


def _token(request: Request) -> str | None:
    return request.headers.get("authorization", "").removeprefix("Bearer ") or None


def _refusal(repository: _Repository | None, request: Request) -> Reply | None:
    token = _token(request)
    if token not in (None, READER, STRANGER):
        return _error(401, None, "Invalid credentials in Authorization header")
    if repository is None:
        # Who isn't logged in gets 401, since it could be a private one.
        status = 401 if token is None else 404
        return _error(status, "RepoNotFound", "Repository not found")
    if repository.access is Access.GATED and token != READER:
        status = 401 if token is None else 403
        return _error(status, "GatedRepo", "Access to this model is restricted.")
    return None


def _error(status: int, code: str | None, message: str) -> Reply:
    headers = {"X-Error-Message": message}
    if code is not None:
        headers["X-Error-Code"] = code
    return plain(status, message, headers=headers)


def _git_etag(blob: bytes) -> str:
    return f'"{_sha1(f"blob {len(blob)}".encode() + bytes(1) + blob)}"'


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
