"""Fetches one commit of a custom node's repository by git, without its history."""

import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import ManifestError, MorpheusError, OriginDenied, OriginUnavailable
from morpheus_boot.work.backoff import Backoff, try_again
from morpheus_boot.work.program import Ended, run_program

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT_S: Final = 900.0
_BACKOFF: Final = Backoff(first_s=1.0, most_s=4.0, deadline_s=15.0)

# git 2.39's words, in its C locale, and those of the servers behind it.
_DENIED: Final = re.compile(
    r"(?i)authentication failed|could not read (username|password)|permission denied|access denied|"
    r"invalid credentials|returned error: 40[13]"
)
_ABSENT: Final = re.compile(r"(?i)not found|does not exist|not appear to be a git repository")
_NO_SUCH_COMMIT: Final = re.compile(
    r"(?i)not our ref|unadvertised object|no such remote ref|remote ref|not a tree|not a commit|"
    r"did not match any|unable to read tree|unable to parse object"
)
_SUBMODULE: Final = re.compile(r"clone of '(.*)' into submodule path")

# The URL of a node may bring user and password. On a command line, of git's own helpers too, all could read them.
_HELPER: Final = (
    "!f() { "
    r"""printf 'username=%s\npassword=%s\n' "$MORPHEUS_GIT_USERNAME" "$MORPHEUS_GIT_PASSWORD"; """
    "}; f"
)


def is_commit(ref: str) -> bool:
    """Whether ``ref`` is a commit's full hash, which stands for the same content for ever."""
    return _COMMIT.fullmatch(ref) is not None


class _Unreachable(OriginUnavailable):
    """It may be reached another time."""


class Repository:
    """The git repository of one custom node."""

    def __init__(
        self,
        name: str,
        url: Secret,
        *,
        environ: Mapping[str, str],
        stopping: threading.Event,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """``name`` is the node's, for errors."""
        self._subject = f"custom node {name}"
        self._stopping = stopping
        self._backoff = backoff
        self._url, self._environ = _without_credentials(url.reveal(), environ)

    def commit_of(self, ref: str) -> str:
        """The commit that a tag or a branch stands for now; the tag's, where there are both.

        HEAD is the default branch. Raises ManifestError where there is no such ref, and as fetch() does.
        """
        if is_commit(ref):
            return ref
        names = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"]
        if ref == "HEAD":
            names = [ref]
        said = self._git(Path.cwd(), "ls-remote", "--", self._url, *names)
        found = {name: commit for commit, name in map(str.split, said.splitlines())}
        commit = next((found[name] for name in names if name in found), None)
        if commit is None:
            raise ManifestError(
                self._subject,
                f"{self._url} has no tag or branch '{ref}'",
                "give ref: a tag, or all 40 digits of a commit",
            )
        return commit

    def fetch(self, commit: str, tree: Path) -> None:
        """Puts the files of ``commit`` into ``tree``, an empty folder, with its submodules and without any .git.

        Raises:
            ManifestError: the repository has no such commit.
            OriginUnavailable: it can't be reached, or is not there.
            OriginDenied: it refuses.
            NotSetUp: there is no git.
            WaitedTooLong: git took too long.
            Stopped: the boot was told to stop.
        """
        self._git(tree, "init", "--quiet", "--template=")
        # Submodules may name their places relative to this one's.
        self._git(tree, "remote", "add", "origin", self._url)
        self._git(tree, "fetch", "--quiet", "--no-tags", "--depth=1", "origin", commit)
        self._git(tree, "checkout", "--quiet", "--detach", commit)
        if (tree / ".gitmodules").is_file():
            update = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
            self._git(tree, *update)
        for path in [*tree.rglob(".git")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _git(self, folder: Path, *arguments: str) -> str:
        """What git prints. Raises as fetch() does."""

        def attempt() -> str:
            ended = run_program(
                ("git", *arguments),
                environ=self._environ,
                folder=folder,
                timeout_s=_TIMEOUT_S,
                stopping=self._stopping,
            )
            if ended.code != 0:
                raise self._failure(ended)
            return ended.out

        return try_again(attempt, _Unreachable, self._backoff, pause=self._stopping.wait)

    def _failure(self, ended: Ended) -> MorpheusError:
        """What git's words come to; all but _Unreachable can't be mended by trying again."""
        if _NO_SUCH_COMMIT.search(ended.err):
            return ManifestError(
                self._subject,
                f"{self._url} has no such commit with all its submodules ({ended.words})",
                "give ref: a tag, or all 40 digits of a commit that it has",
            )
        submodule = _SUBMODULE.search(ended.err)
        where = f"{submodule[1]} (its submodule)" if submodule else self._url
        if _DENIED.search(ended.err):
            return OriginDenied(
                self._subject,
                f"{where} refuses, or is not public ({ended.words})",
                "check the URL; a private one takes a token in it (docs/custom-nodes.md)",
            )
        if _ABSENT.search(ended.err):
            return OriginUnavailable(
                self._subject, f"there is no repository at {where}", "check git: and ref:"
            )
        return _Unreachable(
            self._subject,
            f"git can't fetch {where} ({ended.words})",
            "check the network and the URL, and start again",
        )


def _without_credentials(url: str, environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The URL as all may see it, and git's environment, which holds what was taken out of it."""
    parts = urlsplit(url)
    settings = [
        ("core.hooksPath", "/dev/null"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "30"),
    ]
    ours = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": environ.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes",
        "LC_ALL": "C",
    }
    if parts.scheme == "file":
        # git fetches no submodule from a file URL unless it is told to; this one's own place is one.
        settings.append(("protocol.file.allow", "always"))
    elif parts.scheme in {"http", "https"} and "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        scope = f"credential.{parts.scheme}://{host}.helper"
        settings += [(scope, ""), (scope, _HELPER)]
        ours["MORPHEUS_GIT_USERNAME"] = unquote(parts.username or "")
        ours["MORPHEUS_GIT_PASSWORD"] = unquote(parts.password or "")
        url = urlunsplit(parts._replace(netloc=host))
    kept = {
        name: value
        for name, value in environ.items()
        if name not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    }
    return url, kept | ours | _as_variables(settings, int(environ.get("GIT_CONFIG_COUNT") or 0))


def _as_variables(settings: Sequence[tuple[str, str]], first: int) -> dict[str, str]:
    """Settings as git reads them from its environment, behind those that are there (git-config(1))."""
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings, first):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables
