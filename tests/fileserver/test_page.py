"""The page at ``/`` in a real browser: what the boot's state document says, again and again."""

from collections.abc import Callable, Iterator

import pytest

from morpheus_boot.report.state import (
    ModelStage,
    ModelState,
    Readiness,
    ServiceStage,
    ServiceState,
    StateBoard,
)
from tests.fileserver.browser import CHROMIUM, Browser
from tests.fileserver.serving import FileServer
from tests.fileserver.test_boot_routes import board
from tests.wait import wait_until

MODEL = "checkpoints/a.safetensors"
SHOWN = "document.body.innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def boot(shared: FileServer) -> StateBoard:
    return board(shared)


def wait_for(browser: Browser, expression: str, wanted: Callable[[str], bool]) -> None:
    """Until the page itself shows it, without a reload."""

    def shows() -> None:
        value = browser.evaluate(expression)
        assert wanted(str(value)), value

    wait_until(shows, 20)


def test_the_page_follows_a_boot_from_its_first_byte_to_ready(
    browser: Browser, shared: FileServer, boot: StateBoard
) -> None:
    boot.put_model(ModelState(MODEL, ModelStage.FETCHING, 2_000_000, 8_000_000, left_s=30.0))
    browser.open(shared.url)
    wait_for(browser, SHOWN, lambda text: "25 % of 8.0 MB, 30 s left" in text)

    boot.put_model(ModelState(MODEL, ModelStage.PRESENT, 8_000_000, 8_000_000))
    boot.put_service(ServiceState("comfyui", ServiceStage.RUNNING, 8188, 42))
    boot.set_readiness(Readiness.READY)

    wait_for(browser, SHOWN, lambda text: "present" in text and "% of" not in text)
    assert browser.evaluate("document.title") == "ready - Morpheus boot"
    assert browser.evaluate("document.getElementById('comfyui').href") == "http://127.0.0.1:8188/"


def test_the_page_names_the_cause_and_the_exit_code_of_a_boot_that_failed(
    browser: Browser, shared: FileServer, boot: StateBoard
) -> None:
    boot.set_readiness(Readiness.FAILED, error="volume: none is mounted; attach one", exit_code=78)

    browser.open(shared.url)

    wait_for(browser, SHOWN, lambda text: "volume: none is mounted; attach one (exit 78)" in text)


def test_a_name_that_is_markup_is_shown_as_text(
    browser: Browser, shared: FileServer, boot: StateBoard
) -> None:
    name = "loras/<img src=x onerror=document.title='taken'>.bin"
    boot.put_model(ModelState(name, ModelStage.MISSING))

    browser.open(shared.url)

    wait_for(browser, SHOWN, lambda text: name in text)
    assert browser.evaluate("document.images.length") == 0


def test_the_page_says_that_nobody_answers_any_more(
    browser: Browser, start: Callable[..., FileServer]
) -> None:
    server = start()
    browser.open(server.url)
    wait_for(browser, SHOWN, lambda text: "starting" in text)

    server.stop()

    wait_for(browser, SHOWN, lambda text: "no answer since" in text)


def test_with_a_token_the_page_comes_after_the_form(
    browser: Browser, start: Callable[..., FileServer]
) -> None:
    server = start(env={"MORPHEUS_TOKEN": "open sesame"})
    browser.open(server.url)
    wait_for(browser, "document.title", lambda title: title == "Token")

    browser.evaluate("document.querySelector('input').value = 'open sesame'")
    browser.evaluate("document.querySelector('form').submit()")

    wait_for(browser, "document.title", lambda title: "Morpheus boot" in title)


def test_nothing_but_the_pages_own_script_may_run(shared: FileServer) -> None:
    policy = shared.get("/").headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
