"""What is asked of a ComfyUI over HTTP, and what its silence means."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from morpheus_boot.comfyui.api import ComfyUIApi
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.redact import Secret
from tests.wait import wait_until

TOKEN = "s3cret"


class Answers(ThreadingHTTPServer):
    """A server that answers what it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, object] = {}
        self.token: str | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        stranger = self.server.token not in {None, self.headers["Authorization"]}
        known = self.path in self.server.routes
        self.send_response(401 if stranger else 200 if known else 404)
        self.end_headers()
        if known and not stranger:
            self.wfile.write(json.dumps(self.server.routes[self.path]).encode())

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


def test_nobody_there_is_no_refusal(comfyui: Answers) -> None:
    comfyui.server_close()

    assert not api(comfyui).refuses_strangers()


def test_a_comfyui_that_does_not_answer_in_time_is_told_with_its_last_lines(
    comfyui: Answers,
) -> None:
    with pytest.raises(WaitedTooLong, match=r"its last lines: loading \| still loading"):
        api(comfyui).wait_until_it_answers(
            deadline_s=0.0,
            stopping=threading.Event(),
            last_lines=lambda: "loading | still loading",
        )


def test_the_wait_ends_with_the_first_answer_and_with_a_stop(comfyui: Answers) -> None:
    stopping = threading.Event()
    waiting = threading.Thread(
        target=api(comfyui).wait_until_it_answers,
        kwargs={"deadline_s": 60.0, "stopping": stopping, "last_lines": str},
    )
    waiting.start()
    stopping.set()
    wait_until(lambda: not waiting.is_alive())

    comfyui.routes["/system_stats"] = {}
    api(comfyui).wait_until_it_answers(deadline_s=60.0, stopping=threading.Event(), last_lines=str)
