"""What is asked of a ComfyUI over HTTP, and what its silence means."""

import json
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest

from morpheus_boot.comfyui.api import ComfyUIApi, NoAnswer
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped

TOKEN = "s3cret"


class Silence(Enum):
    """Ways to say nothing."""

    NOBODY = "the port is closed"
    CUT = "the connection ends before the answer"
    CUT_LATE = "the connection ends within the answer"
    FAILS = "the answer is 500"
    NONSENSE = "the answer is no JSON"


class Answers(ThreadingHTTPServer):
    """A server that answers what it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, object] = {}
        self.token: str | None = None
        self.silence: Silence | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        if self.server.silence is not None:
            self._say_nothing(self.server.silence)
            return
        stranger = self.server.token not in {None, self.headers["Authorization"]}
        known = self.path in self.server.routes
        self.send_response(401 if stranger else 200 if known else 404)
        self.end_headers()
        if known and not stranger:
            self.wfile.write(json.dumps(self.server.routes[self.path]).encode())

    def _say_nothing(self, how: Silence) -> None:
        if how is Silence.CUT:
            return
        self.send_response(500 if how is Silence.FAILS else 200)
        if how is Silence.CUT_LATE:
            self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Says nothing."""


@pytest.fixture
def comfyui() -> Iterator[Answers]:
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def api(comfyui: Answers) -> ComfyUIApi:
    return ComfyUIApi(comfyui.server_port, Secret(TOKEN))


def test_the_newer_route_says_which_folder_reads_which_directories(comfyui: Answers) -> None:
    comfyui.routes["/internal/folder_paths"] = {"text_encoders": ["/m/text_encoders", "/m/clip"]}

    assert api(comfyui).folder_paths("/m") == {"text_encoders": ("/m/text_encoders", "/m/clip")}


def test_an_older_comfyui_reads_a_directory_of_each_folders_name(comfyui: Answers) -> None:
    comfyui.routes["/models"] = ["loras", "vae"]

    assert api(comfyui).folder_paths("/m") == {"loras": ("/m/loras",), "vae": ("/m/vae",)}


def test_a_folder_lists_its_files_and_an_unknown_one_none(comfyui: Answers) -> None:
    comfyui.routes["/models/my%20loras"] = ["a.safetensors"]

    assert api(comfyui).files_of("my loras") == {"a.safetensors"}
    assert api(comfyui).files_of("none") == frozenset()


def test_only_401_refuses_a_stranger(comfyui: Answers) -> None:
    assert not api(comfyui).refuses_strangers()  # 404
    comfyui.routes["/system_stats"] = {}
    assert not api(comfyui).refuses_strangers()  # 200
    comfyui.token = f"Bearer {TOKEN}"
    assert api(comfyui).refuses_strangers()


def test_comfyui_is_asked_directly_whatever_proxy_the_container_has(
    comfyui: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    comfyui.routes["/models/loras"] = ["a.safetensors"]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert api(comfyui).files_of("loras") == {"a.safetensors"}


ASKED: Final[tuple[Callable[[ComfyUIApi], object], ...]] = (
    ComfyUIApi.require_answer,
    lambda comfyui: comfyui.folder_paths("/m"),
    lambda comfyui: comfyui.files_of("loras"),
)


@pytest.mark.parametrize(
    ("ask", "how"),
    [
        *((ask, how) for ask in ASKED for how in Silence),
        # Neither refused nor let in.
        *((ComfyUIApi.refuses_strangers, how) for how in (Silence.NOBODY, Silence.CUT)),
    ],
)
def test_silence_is_not_taken_for_an_answer(
    comfyui: Answers, ask: Callable[[ComfyUIApi], object], how: Silence
) -> None:
    comfyui.silence = how
    if how is Silence.NOBODY:
        comfyui.server_close()

    with pytest.raises(NoAnswer):
        ask(api(comfyui))


def look_with(comfyui: Answers, look: Callable[[ComfyUIApi], object], deadline_s: float) -> object:
    """What ``look`` comes to, with nobody telling it to stop."""
    asked = api(comfyui)
    return asked.when_it_answers(
        lambda: look(asked),
        deadline_s=deadline_s,
        stopping=threading.Event(),
        last_lines=lambda: "loading | still loading",
    )


def test_a_comfyui_that_does_not_answer_in_time_is_told_with_its_last_lines(
    comfyui: Answers,
) -> None:
    with pytest.raises(WaitedTooLong, match=r"its last lines: loading \| still loading") as raised:
        look_with(comfyui, ComfyUIApi.require_answer, 0.0)

    assert "/system_stats: there is no such route" in raised.value.cause


def test_a_look_begins_anew_where_one_of_its_requests_had_no_answer(comfyui: Answers) -> None:
    looks: list[int] = []

    def look(asked: ComfyUIApi) -> object:
        looks.append(1)
        asked.require_answer()
        comfyui.silence = Silence.CUT if len(looks) == 1 else None
        try:
            return asked.files_of("loras")
        finally:
            comfyui.silence = None

    comfyui.routes = {"/system_stats": {}, "/models/loras": ["a.safetensors"]}

    assert look_with(comfyui, look, 60.0) == {"a.safetensors"}
    assert len(looks) == 2


def test_a_stop_ends_the_wait(comfyui: Answers) -> None:
    stopping = threading.Event()
    waiting = begin(
        lambda: api(comfyui).when_it_answers(
            api(comfyui).require_answer, deadline_s=60.0, stopping=stopping, last_lines=str
        ),
        "waiting",
    )
    stopping.set()

    with pytest.raises(Stopped):
        waiting.result(10)
