"""``import`` turns the customer's resource list into a models.yaml that the program reads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.errors import MorpheusError
from morpheus_boot.manifest import Manifest, read_manifest
from morpheus_boot.manifest.document import Document, read_text
from morpheus_boot.manifest.resources import read_resources
from tests.boot.program import Site

CUSTOMERS_LIST = """\
# Nodes [VERIFICADO]
GIT,ComfyUI-Manager,https://github.com/ltdrdata/ComfyUI-Manager
GIT, ComfyUI_InstantID, https://github.com/cubiq/ComfyUI_InstantID.git

URL_AUTH,checkpoints/talmendoxl_v11_beta.safetensors,https://civitai.com/api/download/models/131960
URL_AUTH, checkpoints/CyberRealisticXLPlay_V6.0.safetensors, https://huggingface.co/cyberdelia/CyberRealisticXL/resolve/main/CyberRealisticXLPlay_V6.0.safetensors
URL_AUTH,checkpoints/PhotoMomentum_v2.0.safetensors,https://civitai.com/api/download/models/2211429?type=Model&format=SafeTensor&size=pruned&fp=fp16&token=0123456789abcdef
MODEL,ipadapter,h94/IP-Adapter,ip-adapter-plus-face_sdxl.bin
MODEL,controlnet,lllyasviel/ControlNet-v1-1,control_v11p_sd15_openpose.pth
MODEL,controlnet,lllyasviel/ControlNet-v1-1,control_v11p_sd15_openpose.pth
URL_AUTH, insightface, DUMMY_URL
"""


def imported(tmp_path: Path, written: str) -> Manifest:
    """What the program reads from what ``import`` wrote for a list."""
    listed, file = tmp_path / "list.txt", tmp_path / "models.yaml"
    listed.write_text(written)
    file.write_text(read_resources("list.txt", read_text(listed, "")).text("list.txt"))
    return read_manifest(file, {"HOST_EXAMPLE_TOKEN": "t0ken", "HOST_EXAMPLE_LOGIN": "me:pw"})


def test_the_customers_list_becomes_a_models_yaml_that_plan_can_read(tmp_path: Path) -> None:
    resources = tmp_path / "morpheus_resources_sdxl.txt"
    resources.write_text(CUSTOMERS_LIST)
    site = Site(tmp_path, "version: 1\n")

    ended = site.run("import", str(resources))

    assert ended.code == 0
    (tmp_path / "imported.yaml").write_text(ended.out)
    manifest = read_manifest(tmp_path / "imported.yaml", {})
    assert {m.path: m.source.identity for m in manifest.models} == {
        "checkpoints/talmendoxl_v11_beta.safetensors": "civitai:131960",
        "checkpoints/CyberRealisticXLPlay_V6.0.safetensors": (
            "huggingface:cyberdelia/CyberRealisticXL/CyberRealisticXLPlay_V6.0.safetensors@main"
        ),
        "checkpoints/PhotoMomentum_v2.0.safetensors": (
            "https://civitai.com/api/download/models/2211429"
            "?type=Model&format=SafeTensor&size=pruned&fp=fp16"
        ),
        "ipadapter/ip-adapter-plus-face_sdxl.bin": (
            "huggingface:h94/IP-Adapter/ip-adapter-plus-face_sdxl.bin@main"
        ),
        "controlnet/control_v11p_sd15_openpose.pth": (
            "huggingface:lllyasviel/ControlNet-v1-1/control_v11p_sd15_openpose.pth@main"
        ),
    }
    assert {n.name: (n.git.reveal(), n.ref) for n in manifest.nodes} == {
        "ComfyUI-Manager": ("https://github.com/ltdrdata/ComfyUI-Manager", "HEAD"),
        "ComfyUI_InstantID": ("https://github.com/cubiq/ComfyUI_InstantID.git", "HEAD"),
    }
    # The token that a line holds is named by its line, and is nowhere in what is printed.
    assert "morpheus_resources_sdxl.txt line 7 holds a credential" in ended.err
    assert "CIVITAI_TOKEN" in ended.err
    assert "0123456789abcdef" not in ended.out + ended.err
    assert (
        "# Line 11 is left out: 'DUMMY_URL' is no URL.\n#   URL_AUTH, insightface, DUMMY_URL"
        in ended.out
    )


def test_another_hosts_credentials_come_from_the_environment(tmp_path: Path) -> None:
    written = (
        "URL_AUTH,loras/a.safetensors,https://host.example/a?v=2&token=0123456789\n"
        "URL_AUTH,loras/b.safetensors,https://me:pw@host.example/b\n"
    )

    sources = [m.source for m in imported(tmp_path, written).models]

    assert [getattr(s, "url").reveal() for s in sources] == [  # noqa: B009 - of UrlSource alone
        "https://host.example/a?v=2&token=t0ken",
        "https://me:pw@host.example/b",
    ]
    assert "0123456789" not in (tmp_path / "models.yaml").read_text()


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        ("https://civitai.com/api/download/models/7?token=abcdef", "civitai:7"),
        ("https://civitai.red/api/download/models/7?token=abcdef", "civitai:7"),
        ("https://civitai.com/api/download/models/7?token=${CIVITAI_TOKEN}", "civitai:7"),
        (
            "https://civitai.com/api/download/models/7?fp=fp16",
            "https://civitai.com/api/download/models/7?fp=fp16",
        ),
        (
            "https://huggingface.co/o/r/resolve/v1/dir/a%20b.bin?download=true",
            "huggingface:o/r/dir/a b.bin@v1",
        ),
        ("https://huggingface.co/o/r/blob/main/a.bin", "huggingface:o/r/a.bin@main"),
        (
            "https://huggingface.co/datasets/o/r/resolve/main/a.bin",
            "huggingface:datasets/o/r/a.bin@main",
        ),
        ("https://mirror.example/o/r/resolve/main/a.bin",) * 2,
        ("https://host.example/a?x=1&y={2}", "https://host.example/a?x=1&y={2}"),
    ],
)
def test_a_url_becomes_the_source_that_says_the_same(
    tmp_path: Path, url: str, identity: str
) -> None:
    [model] = imported(tmp_path, f"URL_AUTH,loras/a.bin,{url}").models

    assert (model.path, model.source.identity) == ("loras/a.bin", identity)


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    [model] = imported(tmp_path, "\ufeffMODEL, vae, o/r, a.bin\r\n\r\n  # no more\r\n\r\n").models

    assert (model.path, model.source.identity) == ("vae/a.bin", "huggingface:o/r/a.bin@main")


def test_of_two_lines_with_one_path_the_first_counts_and_the_other_stays_as_a_comment(
    tmp_path: Path,
) -> None:
    written = "MODEL,vae,o/r,a.bin\nMODEL,vae,other/r,a.bin\nGIT,N,https://h/n\nGIT,N,https://h/m"

    manifest = imported(tmp_path, written)

    assert [m.source.identity for m in manifest.models] == ["huggingface:o/r/a.bin@main"]
    assert [n.git.reveal() for n in manifest.nodes] == ["https://h/n"]
    text = (tmp_path / "models.yaml").read_text()
    assert "Line 2 is left out: an earlier line has this path" in text
    assert "Line 4 is left out: an earlier line has this name" in text


def test_all_mistakes_are_named_at_once_each_with_its_line() -> None:
    listed = (
        "WGET,a,https://host/a\n"
        "URL_AUTH,../a.bin,https://host/a\n"
        "URL_AUTH,a.bin,https://host/a\n"
        "MODEL,vae,no-owner,a.bin\n"
        "GIT,Node\n"
        "GIT,No/de,https://host/a\n"
        "URL_AUTH,vae/a.bin,ftp://host/a\n"
    )

    with pytest.raises(MorpheusError) as raised:
        read_resources("list.txt", listed)

    said = str(raised.value).splitlines()
    assert [line.split(":")[0].partition(",")[0] for line in said] == [
        f"list.txt line {number}" for number in range(1, 8)
    ]


def test_a_list_that_is_not_utf_8_or_not_there_ends_with_65(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"# a\n# \xf1\n")
    site = Site(tmp_path, "version: 1\n")

    not_utf_8 = site.run("import", str(tmp_path / "latin1.txt"))
    missing = site.run("import", str(tmp_path / "none.txt"))

    assert (not_utf_8.code, not_utf_8.out) == (65, "")
    assert "line 2" in not_utf_8.err
    assert (missing.code, missing.out) == (65, "")
    assert "none.txt" in missing.err


_PIECES = st.sampled_from(
    [
        *(
            "GIT,",
            "URL_AUTH,",
            "MODEL,",
            "a/b",
            "o/n",
            ",",
            "\n",
            "#",
            "..",
            "'",
            "{",
            "${A}",
            "%00",
        ),
        *(
            "https://h/x",
            "http://[::1",
            "http://u:p@h/a",
            "?token=abc",
            "git@h:o/n",
            "\x1b",
            "\x85",
        ),
        *("https://civitai.com/api/download/models/7", "https://huggingface.co/o/r/resolve/main/"),
    ]
)


@given(st.lists(_PIECES | st.text(max_size=3), max_size=20).map("".join))
def test_any_list_becomes_yaml_or_names_its_mistakes(written: str) -> None:
    try:
        text = read_resources("list.txt", written).text("list.txt")
    except MorpheusError as error:
        said = str(error).split("\n")
    else:
        said = []
        assert Document("models.yaml", text, {"A": "x"}).data["version"] == "1"
    assert all(line.startswith("list.txt line ") for line in said)
