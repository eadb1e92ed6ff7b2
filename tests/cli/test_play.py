"""``gconv-ga play``: the page for the networks of the package and for those of a user."""

import pytest


def test_page_of_the_package(invoke, tmp_path):
    said = invoke("play", "--out", tmp_path / "new" / "play.html").stdout
    page = (tmp_path / "new" / "play.html").read_text(encoding="utf-8")
    assert "C4 U-Net" in page
    assert said == f"{tmp_path / 'new' / 'play.html'}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser\n"


def test_page_of_a_run_and_its_baseline(invoke, trained, balanced, tmp_path):
    invoke("play", "--out", tmp_path / "a.html", "--run", trained)
    assert "your C8 U-Net" in (tmp_path / "a.html").read_text(encoding="utf-8")
    plain = balanced["UNet"]
    invoke("play", "--out", tmp_path / "b.html", "--run", balanced["EquivariantUNet"], "--baseline", plain)
    assert "your baseline" in (tmp_path / "b.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--run", "absent.safetensors"], "--run"),
        (["--baseline", "absent.safetensors"], "--baseline"),
        (["--baseline", "UNet"], "--baseline"),
    ],
    ids=["no run", "no baseline", "baseline alone"],
)
def test_wrong_input_is_refused(arguments, option, invoke, balanced, tmp_path):
    typed = [balanced.get(argument, argument) for argument in arguments]
    result = invoke("play", "--out", tmp_path / "play.html", *typed, code=2)
    assert f"'{option}'" in result.stderr
    assert not (tmp_path / "play.html").exists()


def test_folder_in_place_of_the_file_is_refused(invoke, tmp_path):
    assert "is a folder" in invoke("play", "--out", tmp_path, code=2).stderr


def test_large_page_is_written_with_a_warning(invoke, tmp_path, monkeypatch):
    assert invoke("play", "--out", tmp_path / "play.html").stderr == ""
    monkeypatch.setattr("gconv_ga.cli._play_command.LARGE", 300_000)
    said = invoke("play", "--out", tmp_path / "play.html").stderr
    assert "more than 0 MB" in said
    assert "train with a smaller --width" in said
    assert (tmp_path / "play.html").stat().st_size > 300_000
