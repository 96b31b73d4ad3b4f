"""The testbed as fixtures; tests/conftest.py loads them."""

from collections.abc import Iterator

import pytest

from tests.testbed import moosefs as moosefs_bed
from tests.testbed import shim as shim_bed
from tests.testbed.certificates import ServerCertificate
from tests.testbed.civitai import CivitaiStandIn
from tests.testbed.hub import HubStandIn
from tests.testbed.moosefs import MooseFS
from tests.testbed.origin import Origin
from tests.testbed.shim import Shim


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An origin over HTTP, well-behaved and empty."""
    with Origin() as one:
        yield one


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    """A stand-in for Hugging Face, empty."""
    with Origin() as one:
        yield HubStandIn(one)


@pytest.fixture
def civitai() -> Iterator[CivitaiStandIn]:
    """A stand-in for Civitai, empty."""
    with Origin() as one:
        yield CivitaiStandIn(one)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """A certificate for our addresses on loopback; its file is what a client must trust."""
    return ServerCertificate.below(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def secure_origin(certificate: ServerCertificate) -> Iterator[Origin]:
    """An origin over HTTPS with that certificate."""
    with Origin(tls=certificate) as one:
        yield one


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    """The shim below libc, compiled once a session."""
    if (reason := shim_bed.reason_missing()) is not None:
        pytest.skip(reason)
    return shim_bed.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def moosefs_up() -> Iterator[MooseFS]:
    """One MooseFS for the session; tests take ``moosefs``."""
    if (reason := moosefs_bed.reason_missing()) is not None:
        pytest.skip(reason)
    with MooseFS() as one:
        yield one


@pytest.fixture
def moosefs(moosefs_up: MooseFS) -> Iterator[MooseFS]:
    """A real MooseFS seen by two hosts; each test works in a folder of ``fresh()``, and finds both links whole."""
    yield moosefs_up
    moosefs_up.restore("a")
    moosefs_up.restore("b")
