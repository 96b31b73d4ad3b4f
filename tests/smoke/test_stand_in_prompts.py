"""The stand-in runs prompts as ComfyUI does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_boot.smoke.picture import gradient, png_size
from tests.smoke import graphs
from tests.smoke.conftest import CHECKPOINT, UPSCALER
from tests.smoke.running import StandIn


def _errors(answer: requests.Response) -> list[tuple[str, str]]:
    return [
        (node_id, error["type"])
        for node_id, entry in answer.json()["node_errors"].items()
        for error in entry["errors"]
    ]


def _only_image(entry: dict[str, Any]) -> dict[str, str]:
    [image] = entry["outputs"]["save"]["images"]
    found: dict[str, str] = image
    return found


def test_a_saved_picture_lies_below_the_output_directory_under_a_counter(stand_in: StandIn) -> None:
    entry = stand_in.run(graphs.plain("counted/output/x", width=24, height=10))

    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    image = {"filename": "x_00001_.png", "subfolder": "counted/output", "type": "output"}
    assert _only_image(entry) == image
    saved = stand_in.output / "counted" / "output" / "x_00001_.png"
    assert png_size(saved.read_bytes()) == (24, 10)


def test_the_counter_goes_on_from_the_highest_number_there(stand_in: StandIn) -> None:
    folder = stand_in.output / "high" / "output"
    folder.mkdir(parents=True)
    (folder / "x_00041_.png").touch()
    (folder / "xx_00077_.png").touch()

    assert _only_image(stand_in.run(graphs.plain("high/output/x")))["filename"] == "x_00042_.png"


def test_the_same_prompt_again_succeeds_with_the_same_name_and_no_new_file(
    stand_in: StandIn,
) -> None:
    graph = graphs.plain("again/output/x")
    first, second = stand_in.run(graph), stand_in.run(graph)

    assert second["status"]["status_str"] == "success"
    assert _only_image(second) == _only_image(first)
    assert len(list((stand_in.output / "again" / "output").iterdir())) == 1


def test_a_changed_input_file_is_read_again(stand_in: StandIn) -> None:
    upload = stand_in.output / "changed" / "input" / "a.png"
    upload.parent.mkdir(parents=True)
    names = set()
    for width in (10, 20):
        upload.write_bytes(gradient(width, 4))
        names.add(
            _only_image(stand_in.run(graphs.loaded("changed/input/a.png [output]")))["filename"]
        )

    assert len(names) == 2


def test_another_seed_gives_another_picture_and_the_same_seed_the_same(stand_in: StandIn) -> None:
    def picture(seed: int, prefix: str) -> bytes:
        entry = stand_in.run(graphs.sampled(CHECKPOINT, seed=seed, prefix=f"seeds/output/{prefix}"))
        content = (
            stand_in.output / "seeds" / "output" / _only_image(entry)["filename"]
        ).read_bytes()
        return content[content.index(b"IDAT") :]

    assert picture(1, "a") == picture(1, "b")
    assert picture(1, "c") != picture(2, "d")


def test_a_model_enlarges_a_picture_by_its_own_factor(stand_in: StandIn) -> None:
    entry = stand_in.run(graphs.upscaled(UPSCALER))

    saved = stand_in.output / "j" / "output" / _only_image(entry)["filename"]
    assert png_size(saved.read_bytes()) == (16, 8)


def test_an_unknown_node_type_is_refused(stand_in: StandIn) -> None:
    answer = stand_in.post("/prompt", {"prompt": {"1": graphs.node("FluxCapacitor")}})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "missing_node_type"
    assert answer.json()["error"]["extra_info"]["class_type"] == "FluxCapacitor"
    assert answer.json()["node_errors"] == {}


def test_a_prompt_that_saves_nothing_is_refused(stand_in: StandIn) -> None:
    graph = graphs.plain("x")
    del graph["save"]

    answer = stand_in.post("/prompt", {"prompt": graph})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "prompt_no_outputs"


def test_a_body_without_a_prompt_is_refused(stand_in: StandIn) -> None:
    answer = stand_in.post("/prompt", {})

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "no_prompt")


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        (graphs.sampled("other.safetensors"), ("ckpt", "value_not_in_list")),
        (graphs.upscaled("other.safetensors"), ("model", "value_not_in_list")),
        (graphs.plain("x", width=0), ("make", "value_smaller_than_min")),
        (graphs.plain("x", width=99999), ("make", "value_bigger_than_max")),
        (graphs.loaded("missing.png"), ("load", "custom_validation_failed")),
        (graphs.loaded("/etc/hostname"), ("load", "custom_validation_failed")),
        (graphs.loaded("../../etc/hostname [output]"), ("load", "custom_validation_failed")),
        (
            {"save": graphs.node("SaveImage", filename_prefix="x")},
            ("save", "required_input_missing"),
        ),
        (
            {"save": graphs.node("SaveImage", images=["gone", 0], filename_prefix="x")},
            ("save", "exception_during_validation"),
        ),
        (
            graphs.plain("x")
            | {"save": graphs.node("VAEDecode", samples=["make", 0], vae=["make", 0])}
            | {"out": graphs.node("SaveImage", images=["save", 0], filename_prefix="x")},
            ("save", "return_type_mismatch"),
        ),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named_at_its_node(
    stand_in: StandIn, graph: graphs.Graph, wrong: tuple[str, str]
) -> None:
    answer = stand_in.post("/prompt", {"prompt": graph})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "prompt_outputs_failed_validation"
    assert wrong in _errors(answer)


def test_a_link_that_leaves_the_output_directory_is_refused(
    stand_in: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(gradient(4, 4))
    (stand_in.output / "leak.png").symlink_to(tmp_path / "secret.png")

    answer = stand_in.post("/prompt", {"prompt": graphs.loaded("leak.png [output]")})

    assert _errors(answer) == [("load", "custom_validation_failed")]


def test_a_prefix_that_leaves_the_output_directory_is_an_execution_error(stand_in: StandIn) -> None:
    entry = stand_in.run(graphs.plain("../outside/x"))

    assert entry["status"]["status_str"] == "error"
    assert not (stand_in.folder / "outside").exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("short", lambda b: b[:-1]), ("beheaded", lambda b: b[5:]), ("grown", lambda b: b + b"\0")],
)
def test_a_damaged_model_is_an_execution_error_and_the_server_stays_up(
    stand_in: StandIn, name: str, damage: Callable[[bytes], bytes]
) -> None:
    models = stand_in.folder / "ComfyUI" / "models" / "upscale_models"
    (models / f"{name}.safetensors").write_bytes(damage((models / UPSCALER).read_bytes()))

    entry = stand_in.run(graphs.upscaled(f"{name}.safetensors"))

    assert entry["status"]["status_str"] == "error"
    kind, error = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert error["node_type"] == "UpscaleModelLoader"
    assert "deserializing header" in error["exception_message"]
    assert stand_in.run(graphs.upscaled(UPSCALER))["status"]["status_str"] == "success"


def test_a_dangling_model_link_is_listed_and_fails_only_at_execution(stand_in: StandIn) -> None:
    models = stand_in.folder / "ComfyUI" / "models" / "upscale_models"
    (models / "gone.safetensors").symlink_to("/nowhere/gone.safetensors")

    assert "gone.safetensors" in stand_in.get("/models/upscale_models")
    entry = stand_in.run(graphs.upscaled("gone.safetensors"))
    assert entry["status"]["messages"][-1][1]["exception_type"] == "FileNotFoundError"
