import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.jobs.names import FileName, InvalidName, JobId, OutputPath, SubDir

ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("photo.png", "photo.png"),
        ("ñandú.png", "ñandú.png"),
        ("写真 1.jpg", "写真 1.jpg"),
        ("фото.webp", "фото.webp"),
        ("n\u0303andu\u0301.png", "ñandú.png"),
        ("می\u200cخواهم.png", "می\u200cخواهم.png"),  # noqa: RUF001 - Persian, on purpose
        ("👩\u200d🚀.png", "👩\u200d🚀.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("/", "file"),
        ("", "file"),
        (".", "file"),
        ("..", "file"),
        ("...", "file"),
        (".bashrc", "bashrc"),
        ("a\0b.png", "a_b.png"),
        ("a\nb\r\tc\x7f.png", "a_b__c_.png"),
        ("a.png. . ", "a.png"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com¹.tar.gz", "_com¹.tar.gz"),
        ("console.png", "console.png"),
        ('a<b>:"c|?*.png', "a_b___c___.png"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("a\u200b\ufeffb.png", "ab.png"),
        ("a\u2028b", "a_b"),
        ("a\u3000b", "a b"),
        ("..\uff0f..\uff3cx", "_.._x"),
        ("\u2025", "_"),
        ("\ud800.png", "_.png"),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
    ],
)
def test_a_clients_file_name_becomes_the_nearest_safe_one(sent: str, kept: str) -> None:
    assert FileName.from_client(sent).text == kept


def test_a_long_name_keeps_its_suffix_and_whole_letters() -> None:
    kept = FileName.from_client("写" * 200 + ".safetensors").text
    assert kept.endswith("写.safetensors")
    assert 250 < len(kept.encode()) <= 255


@given(ANY_TEXT)
def test_every_text_becomes_a_name_that_stays_itself(text: str) -> None:
    kept = FileName.from_client(text).text
    assert FileName(kept).text == FileName.from_client(kept).text == kept
    assert 0 < len(kept.encode()) <= 255
    assert not set(kept) & set('/\\\0<>:"|?*')
    assert not {unicodedata.category(c) for c in kept} & {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert kept.strip(" .") == kept
    assert unicodedata.is_normalized("NFC", kept)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "a\\b", "con", "a.", " a", "a\0", "x" * 256]
)
def test_a_file_name_can_not_be_forged(text: str) -> None:
    with pytest.raises(InvalidName):
        FileName(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "_a",
        "a/b",
        "a\\b",
        "a b",
        "a\0",
        "a\n",
        "é",
        "a%2e",
        "a" * 129,
        "checkpoints",
        "loras",
        "vae",
        "clip",
        "diffusion_models",
        "\uff41",
    ],
)
def test_what_is_no_job_id_can_not_become_one(text: str) -> None:
    with pytest.raises(InvalidName):
        JobId(text)


def test_job_ids_are_as_the_contract_has_them() -> None:
    assert [str(JobId(text)) for text in ("a", "7", "A-b_c.d", "a" * 128)]
    assert JobId.new() != JobId.new()


@pytest.mark.parametrize(
    ("text", "parts"),
    [("", ()), ("a", ("a",)), ("a/b c/ñ", ("a", "b c", "ñ")), ("a/", ("a",)), ("n\u0303", ("ñ",))],
)
def test_a_sub_dir_is_folders(text: str, parts: tuple[str, ...]) -> None:
    assert SubDir.parse(text).parts == parts


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/a",
        "a//b",
        "..",
        "a/..",
        "a/../b",
        "./a",
        "a/.",
        "a\\..\\b",
        ".hidden",
        "a\0",
        "a\n",
        "con",
        "x" * 256,
        "/".join("a" * 17),
        "a\uff0fb",
        "a\u202eb",
    ],
)
def test_a_sub_dir_that_leaves_its_folder_or_hides_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        SubDir.parse(text)


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a\0", "x" * 256, "\ud800"]
)
def test_an_output_path_that_names_no_file_of_the_job_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        OutputPath.parse(text)


def test_an_output_may_have_any_name_that_linux_allows() -> None:
    assert OutputPath.parse("a/ b:*?.png").parts == ("a", " b:*?.png")
