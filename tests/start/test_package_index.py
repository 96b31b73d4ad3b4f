"""The package index: which one it is, and a pinned wheel from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp, OriginUnavailable
from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url
from tests.package_index import PackageIndex, package_index, with_sample
from tests.testbed.origin import Origin

NOTHING_LISTENS = "http://127.0.0.1:9/simple"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of this machine's pip."""
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def own_index(pip_wheel: Path) -> Iterator[PackageIndex]:
    with package_index(with_sample(pip_wheel)) as one:
        yield one


USERS = {".config/pip/pip.conf": "[global]\nindex-url = https://b.test/s\n"}
OWN = {"own.conf": "[global]\nindex-url = https://c%20d.test/s\n"}
OLD = {".pip/pip.conf": "[install]\nindex-url = https://e.test/s\n[global]\nindex-url = x\n"}


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, {}, "https://pypi.org/simple"),
        ({"PIP_INDEX_URL": "https://a.test/simple/"}, {}, "https://a.test/simple"),
        ({}, USERS, "https://b.test/s"),
        ({"PIP_CONFIG_FILE": "~/own.conf"}, {**USERS, **OWN}, "https://c%20d.test/s"),
        ({}, OLD, "https://e.test/s"),
    ],
)
def test_the_index_is_the_one_that_pip_would_use(
    environ: dict[str, str], files: dict[str, str], expected: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert index_url(environ) == expected


def test_a_pip_conf_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.conf").write_text("index-url = https://a.test\n")

    with pytest.raises(NotSetUp, match=r"pip\.conf: .*own\.conf"):
        index_url({"PIP_CONFIG_FILE": str(tmp_path / "own.conf")})


def test_an_index_that_is_overloaded_is_asked_again_and_one_that_refuses_is_not(
    own_index: PackageIndex, tmp_path: Path
) -> None:
    slept: list[float] = []
    own_index.failures += [503, 502]

    assert fetch_wheel(PIP, own_index.url, tmp_path, slept.append).name == PIP.name
    assert slept == [1.0, 3.0]

    own_index.failures += [403]
    with pytest.raises(OriginUnavailable, match="403"):
        fetch_wheel(PIP, own_index.url, tmp_path, slept.append)
    assert slept == [1.0, 3.0]


def test_an_index_that_does_not_answer_is_tried_three_times(tmp_path: Path) -> None:
    slept: list[float] = []

    with pytest.raises(OriginUnavailable, match=r"Connection refused.*check the network"):
        fetch_wheel(PIP, NOTHING_LISTENS, tmp_path, slept.append)

    assert slept == [1.0, 3.0]


def test_an_index_with_a_certificate_that_nobody_vouches_for_is_named_with_its_mend(
    secure_origin: Origin, tmp_path: Path
) -> None:
    with pytest.raises(OriginUnavailable, match=r"self-signed certificate.*ca-certificates"):
        fetch_wheel(PIP, secure_origin.url, tmp_path)


def test_an_index_without_our_pip_or_with_another_one_is_refused(tmp_path: Path) -> None:
    with package_index(lambda i: i.add("pip", PIP.name, b"another")) as index:
        with pytest.raises(OriginUnavailable, match="sends another"):
            fetch_wheel(PIP, index.url, tmp_path)
        index.add("pip", "pip-1.0-py3-none-any.whl", b"")
        with pytest.raises(OriginUnavailable, match=f"has no {PIP.name}"):
            fetch_wheel(PIP, index.url, tmp_path)

    assert not list(tmp_path.glob("*.whl"))


def test_the_indexs_password_goes_to_the_index_alone_and_into_no_error(
    pip_wheel: Path, tmp_path: Path
) -> None:
    with (
        package_index(with_sample(pip_wheel), host="127.0.0.2") as files,
        package_index(with_sample(pip_wheel)) as index,
    ):
        path = f"/files/{PIP.name}"
        del index.files[path]
        index.redirects[path] = files.url.replace("/simple", path)
        url = index.url.replace("://", "://user:pass%20word@")

        fetch_wheel(PIP, url, tmp_path)
        index.files.clear()
        with pytest.raises(OriginUnavailable) as caught:
            fetch_wheel(PIP, url, tmp_path)

    basic = "Basic dXNlcjpwYXNzIHdvcmQ="  # user:pass word
    assert {authorization for _, authorization in index.asked} == {basic}
    assert {authorization for _, authorization in files.asked} == {None}
    assert "pass" not in str(caught.value)
