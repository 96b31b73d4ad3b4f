"""What ComfyUI's process, and so every custom node, sees of the container's environment."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.environment import comfyui_environment

REPOSITORY = Path("/opt/morpheus_config")
NODE_CACHE = Path("/workspace/.morpheus/node_cache")


def environment(*passed: str, **environ: str) -> dict[str, str]:
    return comfyui_environment(environ, passed, REPOSITORY, NODE_CACHE)


@pytest.mark.parametrize(
    "name",
    [
        *("MORPHEUS_TOKEN", "MORPHEUS_LOCAL_DIR", "HF_TOKEN", "CIVITAI_TOKEN", "RUNPOD_API_KEY"),
        *("RUNPOD_AI_API_KEY", "RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_WEBHOOK_POST_OUTPUT"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "openai_api_key"),
        *("MYSQL_PWD", "PGPASS", "GITHUB_PAT", "NPM_AUTH", "SSH_KEY", "OPENAI_KEY"),
    ],
)
def test_a_secret_is_withheld_unless_it_is_passed_by_name(name: str) -> None:
    assert name not in environment(**{name: "x"})
    assert environment(name, **{name: "x"})[name] == "x"


@pytest.mark.parametrize(
    "name",
    [
        *("RUNPOD_POD_ID", "CUDA_VISIBLE_DEVICES", "PATH", "PWD", "OLDPWD", "KEYBOARD"),
        *("TOKENIZERS_PARALLELISM", "COMPASS", "PUBLIC_KEY", "AUTHOR"),
    ],
)
def test_what_is_no_secret_is_there(name: str) -> None:
    assert environment(**{name: "x"})[name] == "x"


def test_a_variable_that_models_yaml_names_is_withheld_whatever_it_is_called() -> None:
    environ = {"CDN_PAT": "x", "PLAIN": "y"}

    kept = comfyui_environment(environ, (), REPOSITORY, NODE_CACHE, named=["CDN_PAT"])
    passed = comfyui_environment(environ, ["CDN_PAT"], REPOSITORY, NODE_CACHE, named=["CDN_PAT"])

    assert "CDN_PAT" not in kept
    assert kept["PLAIN"] == "y"
    assert passed["CDN_PAT"] == "x"


def test_a_url_with_a_password_is_withheld_and_a_proxy_is_not() -> None:
    url = "https://me:pass@pypi.example/simple"

    assert "PIP_INDEX_URL" not in environment(PIP_INDEX_URL=url)
    assert environment("PIP_INDEX_URL", PIP_INDEX_URL=url)["PIP_INDEX_URL"] == url
    assert environment(https_proxy=url, HTTP_PROXY=url)["https_proxy"] == url
    assert "PIP_INDEX_URL" in environment(PIP_INDEX_URL="https://pypi.example/simple")


def test_our_own_modules_are_not_on_its_path_and_others_stay() -> None:
    path = f"{REPOSITORY}:/opt/other"

    assert environment(PYTHONPATH=path)["PYTHONPATH"] == "/opt/other"
    assert "PYTHONPATH" not in environment(PYTHONPATH=str(REPOSITORY))


def test_what_nodes_download_is_kept_on_the_volume_unless_the_user_says_where() -> None:
    assert environment()["HF_HOME"] == f"{NODE_CACHE}/huggingface"
    assert environment()["TORCH_HOME"] == f"{NODE_CACHE}/torch"
    assert environment(HF_HOME="/mine")["HF_HOME"] == "/mine"


def test_what_no_program_does_without_stays_though_models_yaml_names_it() -> None:
    environ = {"HOME": "/root", "PATH": "/bin"}

    kept = comfyui_environment(environ, (), REPOSITORY, NODE_CACHE, named=["HOME", "PATH"])

    assert environ.items() <= kept.items()
