"""Arguments and environment, read once."""

from pathlib import Path

import pytest

from fileserver.settings import read_server_settings
from morpheus_boot.config.redact import Secret
from morpheus_boot.config.settings import Overrides, read_settings, worker_file
from morpheus_boot.errors import NotSetUp, UsageError
from morpheus_boot.volume.layout import is_job_id


def test_defaults_need_no_environment() -> None:
    settings = read_settings(environ={})

    assert (settings.comfyui_port, settings.fileserver_port) == (8188, 8000)
    assert settings.volume is None
    assert settings.hold_s == 0
    assert settings.models.name == "models.yaml"


def test_an_option_wins_over_its_variable() -> None:
    environ = {"MORPHEUS_VOLUME": "/from/environment", "MORPHEUS_LOG": "text"}

    settings = read_settings(Overrides(volume=Path("/from/option"), log_format="json"), environ)

    assert settings.volume == Path("/from/option")
    assert settings.log_format == "json"


def test_a_pod_holds_for_900_s_and_a_serverless_worker_does_not() -> None:
    pod = read_settings(environ={"RUNPOD_POD_ID": "pod1"})
    worker = read_settings(environ={"RUNPOD_POD_ID": "pod1", "RUNPOD_ENDPOINT_ID": "ep1"})

    assert (pod.hold_s, worker.hold_s) == (900, 0)
    assert (pod.worker, pod.endpoint) == ("pod1", "pod1")
    assert (worker.worker, worker.endpoint) == ("pod1", "ep1")


def test_a_worker_id_is_a_job_id_drawn_once_a_container(tmp_path: Path) -> None:
    environ = {"MORPHEUS_LOCAL_DIR": str(tmp_path)}
    drawn = {read_settings(environ=environ).worker for _ in range(5)}
    worker_file(tmp_path).write_text("drawn-abcdef")

    assert len(drawn) == 5
    assert all(map(is_job_id, drawn))
    assert read_settings(environ=environ).worker == "drawn-abcdef"
    assert read_settings(environ={**environ, "RUNPOD_POD_ID": "pod1"}).worker == "pod1"
    worker_file(tmp_path).write_text("../no job's id")
    assert read_settings(environ=environ).worker not in {*drawn, "../no job's id"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("COMFYUI_PORT", value) for value in ("0", "eighty")),
        *(("FILESERVER_PORT", "70000"), ("PORT", "-1")),
        *(("MORPHEUS_VOLUME_GB", value) for value in ("big", "nan", "-3")),
        *(("MORPHEUS_HOLD_S", "soon"), ("MORPHEUS_LOG", "xml"), ("MORPHEUS_MAX_FORM_KB", "-1")),
        *(("MORPHEUS_JOB_TTL_HOURS", value) for value in ("0", "inf")),
        *(("MORPHEUS_MAX_UPLOAD_MB", "abc"), ("MORPHEUS_MAX_JOB_FILES", "0")),
        ("MORPHEUS_MAX_CONNECTIONS", "many"),
        *(
            ("COMFYUI_ARGS", value)
            for value in (
                "'unclosed",
                "--port 9",
                "--output-dir=/x",
                "--listen",
                "--i /x",
                "--o=/x",
            )
        ),
    ],
)
def test_a_value_that_says_nothing_sensible_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(environ={name: value})

    assert caught.value.subject == name


@pytest.mark.parametrize("name", ["HF_TOKEN", "CIVITAI_TOKEN", "MORPHEUS_TOKEN"])
@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("{{ RUNPOD_SECRET_MINE }}", "RunPod left {{ RUNPOD_SECRET_MINE }} as it is"),
        ("Bearer {{RUNPOD_SECRET_MINE}}", "RunPod left {{RUNPOD_SECRET_MINE}} as it is"),
        ("{{ RUNPOD_SECRET_Mi né}}", "RunPod left {{ RUNPOD_SECRET_Mi n\\xe9}} as it is"),
        ("hf_good\u200btoken", "its character 8 is U+200B"),
        ("\u201chf_goodtoken\u201d", "its character 1 is U+201C"),
        ("hf_good\udc80token", "its character 8 is U+DC80"),
        ("hf_good\ttoken", "its character 8 is U+0009"),
        ("hf_goodtoken\nhf_goodtoken\n", "more than one line"),
    ],
)
def test_a_token_that_no_header_can_carry_is_named_and_not_shown(
    name: str, value: str, cause: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(environ={name: value})

    assert caught.value.subject == name
    assert cause in caught.value.cause
    assert "hf_good" not in str(caught.value)


def test_space_around_a_token_is_dropped() -> None:
    settings = read_settings(environ={"HF_TOKEN": " hf_goodtoken\r\n", "CIVITAI_TOKEN": "\n"})

    assert settings.hf_token == Secret("hf_goodtoken")
    assert settings.civitai_token is None


@pytest.mark.parametrize(("value", "hours"), [(".5", 0.5), ("1e3", 1000), (" 24 ", 24), ("", None)])
def test_the_boot_passes_no_hours_that_the_file_server_refuses(
    value: str, hours: float | None
) -> None:
    environ = {"MORPHEUS_JOB_TTL_HOURS": value, "MORPHEUS_LOCAL_DIR": "/opt/morpheus"}

    assert read_settings(environ=environ).job_ttl_hours == hours
    assert read_server_settings(environ).job_ttl_hours == hours


def test_comfyuis_arguments_are_split_as_a_shell_does() -> None:
    settings = read_settings(environ={"COMFYUI_ARGS": "--preview-method 'auto mode' --lowvram"})

    assert settings.comfyui_args == ("--preview-method", "auto mode", "--lowvram")


def test_both_programs_hide_the_same_of_the_environment() -> None:
    environ = {
        "HF_TOKEN": "hf_abcdefgh",
        "MY_SECRET": "s3cret-s3cret",
        "AWS_ACCESS_KEY_ID": "AKIA-1234",
        "SMTP_PASSWD": "hunter2",
        "MORPHEUS_TOKEN": "123456",  # told to be the token: hidden though it is a number
        "TOKENIZERS_PARALLELISM": "false",
        "MORPHEUS_LOCAL_DIR": "/opt/morpheus",
    }
    hidden = {"hf_abcdefgh", "s3cret-s3cret", "AKIA-1234", "hunter2", "123456"}

    settings = read_settings(environ=environ)
    assert {s.reveal() for s in settings.secrets} == hidden
    assert not any(secret in repr(settings) for secret in hidden)
    assert {s.reveal() for s in read_server_settings(environ).secrets} == hidden


def test_one_port_for_both_services_is_named() -> None:
    with pytest.raises(UsageError, match="FILESERVER_PORT"):
        read_settings(environ={"COMFYUI_PORT": "9000", "FILESERVER_PORT": "9000"})


def test_a_load_balancers_port_must_not_be_comfyuis() -> None:
    with pytest.raises(NotSetUp, match="PORT"):
        read_settings(environ={"PORT": "8188"})
    settings = read_settings(environ={"PORT": "80", "PORT_HEALTH": "8188"})
    assert settings.extra_ports == (80,)
