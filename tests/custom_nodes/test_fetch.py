"""Fetching a node's repository: one commit without its history, and no token where others can read it."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.comfyui.custom_nodes.fetch import Repository
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import ManifestError, NotSetUp, OriginDenied, OriginUnavailable
from morpheus_boot.work.backoff import Backoff
from tests.custom_nodes.git_server import GitServer, commit, git, git_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "repositories") as one:
        yield one


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def repository(url: str, **environ: str) -> Repository:
    return Repository(
        "Example",
        Secret(url),
        environ={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **environ},
        stopping=threading.Event(),
        backoff=Backoff(first_s=0.01, most_s=0.01, deadline_s=0.1),
    )


def files_of(tree: Path) -> set[str]:
    return {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()}


def test_an_old_commit_is_fetched_without_its_history_and_with_its_submodules(
    server: GitServer, tree: Path
) -> None:
    commit(server.root / "part", {"part.py": "1"})
    node = server.root / "node"
    commit(node, {"old.py": "1"})
    git(node, "submodule", "--quiet", "add", "../part", "parts/part")
    wanted = commit(node, {"__init__.py": "1"})
    commit(node, {"new.py": "1"})
    commit(server.root / "part", {"newer.py": "1"})

    repository(f"{server.url}/node").fetch(wanted, tree)

    assert files_of(tree) == {"old.py", "__init__.py", ".gitmodules", "parts/part/part.py"}
    wants = [body for body in server.bodies if b"command=fetch" in body]
    assert len(wants) > 2  # the submodule's tip first, and then the commit that the node names
    assert all(b"deepen 1" in body for body in wants)


def test_a_repository_in_a_folder_is_fetched_too(server: GitServer, tree: Path) -> None:
    commit(server.root / "part", {"part.py": "1"})
    node = server.root / "node"
    commit(node, {"a.py": "1"})
    git(node, "submodule", "--quiet", "add", str(server.root / "part"), "part")
    wanted = commit(node, {})

    repository(node.as_uri()).fetch(wanted, tree)

    assert files_of(tree) == {"a.py", ".gitmodules", "part/part.py"}


def test_a_submodule_that_is_not_there_is_named_and_not_the_node(
    server: GitServer, tree: Path
) -> None:
    commit(server.root / "part", {"a.py": "1"})
    node = server.root / "node"
    commit(node, {})
    git(node, "submodule", "--quiet", "add", "../part", "part")
    wanted = commit(node, {})
    (server.root / "part").rename(server.root / "gone")

    with pytest.raises(OriginUnavailable, match=f"at {server.url}/part \\(its submodule\\)"):
        repository(f"{server.url}/node").fetch(wanted, tree)


def test_a_tag_stands_for_its_commit_and_comes_before_a_branch(server: GitServer) -> None:
    node = server.root / "node"
    tagged = commit(node, {"a.py": "1"})
    git(node, "tag", "--annotate", "v1", "--message", "one")
    head = commit(node, {"a.py": "2"})
    git(node, "branch", "v1")
    known = repository(f"{server.url}/node")

    assert known.commit_of("v1") == tagged
    assert known.commit_of("main") == head
    assert known.commit_of("HEAD") == head


@pytest.mark.parametrize("ref", ["v9", "abcdef0", "mai", "heads/main"])
def test_a_ref_that_is_not_there_is_a_mistake_in_the_manifest(server: GitServer, ref: str) -> None:
    commit(server.root / "node", {"a.py": "1"})

    with pytest.raises(ManifestError, match=f"custom node Example: .*no tag or branch '{ref}'"):
        repository(f"{server.url}/node").commit_of(ref)


def test_a_commit_that_is_not_there_is_a_mistake_in_the_manifest(
    server: GitServer, tree: Path
) -> None:
    commit(server.root / "node", {"a.py": "1"})

    with pytest.raises(ManifestError, match=r"has no such commit .*0123"):
        repository(f"{server.url}/node").fetch("0123456789" * 4, tree)


def test_a_repository_that_is_not_there_is_said_at_once(server: GitServer, tree: Path) -> None:
    server.root.mkdir()

    with pytest.raises(OriginUnavailable, match="there is no repository at http"):
        repository(f"{server.url}/none").fetch("0123456789" * 4, tree)

    assert len(server.asked) == 1


def test_a_host_that_does_not_answer_is_tried_again_and_then_named(tree: Path) -> None:
    with pytest.raises(OriginUnavailable, match=r"git can't fetch http://127\.0\.0\.1:9/node"):
        repository("http://127.0.0.1:9/node").fetch("0123456789" * 4, tree)


def test_a_private_repository_gets_its_token_and_no_command_line_shows_it(
    server: GitServer, tree: Path, tmp_path: Path
) -> None:
    server.credentials = "me:pass/word"
    wanted = commit(server.root / "node", {"a.py": "1"})
    trace = tmp_path / "trace"
    url = server.url.replace("://", "://me:pass%2Fword@") + "/node"

    repository(url, GIT_TRACE=str(trace)).fetch(wanted, tree)

    assert files_of(tree) == {"a.py"}
    commands = trace.read_text()
    assert "remote-http" in commands
    assert "pass" not in commands.replace("password=", "").replace("_PASSWORD", "")


def test_a_wrong_token_is_refused_at_once_and_not_shown(server: GitServer, tree: Path) -> None:
    server.credentials = "me:other"
    wanted = commit(server.root / "node", {"a.py": "1"})
    url = server.url.replace("://", "://me:hidden-one@") + "/node"

    with pytest.raises(OriginDenied) as caught:
        repository(url).fetch(wanted, tree)

    assert "hidden-one" not in str(caught.value)
    assert server.fetches() == 0


def test_a_repository_that_wants_a_token_and_gets_none_asks_nobody(
    server: GitServer, tree: Path
) -> None:
    server.credentials = "me:other"
    commit(server.root / "node", {"a.py": "1"})

    with pytest.raises(OriginDenied, match="is not public"):
        repository(f"{server.url}/node").fetch("0123456789" * 4, tree)


def test_an_image_without_git_is_not_set_up(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree))

    with pytest.raises(NotSetUp, match="git: it can't be started"):
        repository("http://127.0.0.1:9/node").commit_of("main")
