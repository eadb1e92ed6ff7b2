"""``gconv-ga check``: the verdict, the table, the exit code."""

import pytest
import torch

from gconv_ga.nn import VectorHead

NETWORKS = """
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(2))

def bad():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3))

def pointwise():
    return nn.Conv2d(2, 3, 1)

def triangle():
    from gconv_ga.models import EquivariantUNet
    return EquivariantUNet(2, 2, group="C3", width=1, depth=1)

def baseline():
    from gconv_ga.models import EquivariantUNet
    return EquivariantUNet(2, 2, group="C1", width=2, depth=2)

def text():
    return "no network"

def needy(width):
    return nn.Identity()
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A module in the current folder."""
    (tmp_path / "networks_to_check.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return "networks_to_check"


def test_a_run_is_equivariant_under_its_group(invoke, trained):
    result = invoke("check", "--run", trained)
    assert "EquivariantUNet is equivariant under C4." in result.stdout
    assert "1x1x64x48" in result.stdout
    assert "Of C8 the elements that permute pixels were tested." in result.stdout
    assert "No rule" not in result.stdout, "regular fields of C8 are known under C4 too"


def test_the_maps_of_a_network_for_objects_are_tested_too(invoke, monkeypatch):
    typed = ["check", "--run", "nuclei", "--size", "24x32", "--parts", "suspect"]
    assert "Its maps (distance and flow) are equivariant too." in invoke(*typed).stdout
    original = VectorHead.forward
    monkeypatch.setattr(VectorHead, "forward", lambda self, x: original(self, x).abs())
    result = invoke(*typed, code=1)
    assert "ObjectUNet is equivariant under C4." in result.stdout, "its forward returns the logits alone"
    assert "Its maps (distance and flow) are not equivariant: " in result.stdout


def test_other_angles_need_a_tolerance(invoke, trained, networks):
    result = invoke("check", "--run", trained, "--group", "C8", code=2)
    assert "'--tolerance': C8 has angles at which" in result.stderr
    strict = invoke("check", "--run", trained, "--group", "C8", "--tolerance", "1e-6", "--size", "32x32", code=1)
    assert "EquivariantUNet is not equivariant under C8" in strict.stdout
    typed = ["--channels", 2, "--group", "C8", "--tolerance", "0.1", "--size", "32x32"]
    generous = invoke("check", "--model", f"{networks}:pointwise", *typed)
    assert "Conv2d is equivariant under C8." in generous.stdout


def test_a_tolerance_of_zero_is_refused_by_its_name(invoke, networks):
    typed = ["--model", f"{networks}:pointwise", "--channels", 2, "--group", "C8", "--tolerance", "0"]
    assert "'--tolerance': tolerance must be a positive number" in invoke("check", *typed, code=2).stderr


def test_a_tolerance_at_which_every_network_would_pass_is_no_evidence(invoke, networks):
    typed = ["--model", f"{networks}:pointwise", "--channels", 2, "--group", "C8", "--tolerance", "100"]
    result = invoke("check", *typed, code=2)
    assert "an output that depends on its input" in result.stderr
    assert "a smaller tolerance" in result.stderr
    assert "does not take an image" not in result.stderr


def test_a_baseline_is_tested_under_c4_and_is_not_equivariant(invoke, networks):
    result = invoke("check", "--model", f"{networks}:baseline", "--channels", 2, "--size", "32x32", code=1)
    assert "EquivariantUNet is not equivariant under C4: it is made for C1." in result.stdout
    assert "Give it a group that contains C4: it is made for C1" in result.stdout
    assert "not tested" not in result.stdout, "its parts have no regular fields of C4"
    assert "forward" not in result.stdout
    assert "were tested. --group" not in result.stdout


def test_of_three_rotations_none_permutes_pixels(invoke, networks):
    result = invoke("check", "--model", f"{networks}:triangle", "--channels", 2, code=2)
    assert "no rotation of C3 permutes pixels; give --group C3 and --tolerance" in result.stderr


def test_a_run_is_not_equivariant_under_a_larger_group(invoke, trained):
    result = invoke("check", "--run", trained, "--group", "D4", "--size", "32x32", code=1)
    assert "EquivariantUNet is not equivariant under D4: it is made for C8." in result.stdout
    assert "1x1x32x32" in result.stdout
    assert result.stderr == f"gconv-ga: {trained}/best.safetensors (best validation score, step 3)\n"


@pytest.mark.parametrize("group", ["C2", "d4"])
def test_a_model_of_ones_own(group, invoke, networks):
    result = invoke("check", "--model", f"{networks}:good", "--group", group, "--channels", 2)
    assert f"Sequential is equivariant under {group.upper()}." in result.stdout


def test_what_breaks_it_is_named(invoke, networks):
    result = invoke("check", "--model", f"{networks}:bad", "--channels", 2, code=1)
    assert "not equivariant under C4, because of 1." in result.stdout
    odd = invoke("check", "--model", f"{networks}:good", "--channels", 2, "--size", "33x32", code=1)
    assert "leaves 1 of 33 rows over" in odd.stdout


@pytest.mark.parametrize(
    ("typed", "option", "said"),
    [
        ([], "--run", "give one of --run and --model"),
        (["--model", "networks_to_check:good", "--parts", "some"], "--parts", "parts must be one of 'all', 'suspect'"),
        (["--run", "{run}", "--model", "a:b"], "--run", "give one of --run and --model"),
        (["--run", "nowhere"], "--run", "There is no such file"),
        (["--run", "{run}", "--size", "64"], "--size", "not of the form"),
        (["--run", "{run}", "--size", "0x8"], "--size", "not of the form"),
        (["--run", "{run}", "--size", "1x1"], "--run", "does not take an image (1, 1, 1, 1)"),
        (["--run", "{run}", "--channels", "2"], "--run", "does not take an image"),
        (["--run", "{run}", "--group", "E4"], "--group", "group must be a group"),
        (["--model", "networks_to_check"], "--model", "not of the form package.module:factory"),
        (["--model", "nowhere_at_all:net"], "--model", "No module named"),
        (["--model", "networks_to_check:none"], "--model", "returns no network"),
        (["--model", "networks_to_check:needy"], "--model", "returns no network"),
        (["--model", "networks_to_check:text"], "--model", "returns a str"),
        (["--model", "networks_to_check:good"], "--model", "does not take an image (1, 3, 64, 48)"),
    ],
)
def test_a_wrong_option_is_named(typed, option, said, invoke, trained, networks):
    result = invoke("check", *[part.format(run=trained) for part in typed], code=2)
    assert option in result.stderr
    assert said in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 or (len(lines) == 2 and "best.safetensors (best validation score" in lines[0])
    assert "Traceback" not in result.output


def test_a_pickle_is_refused(invoke, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    assert "pickles are never opened" in invoke("check", "--run", tmp_path / "weights.pt", code=2).stderr


def test_help_shows_an_example(invoke):
    assert "Example: gconv-ga check --model" in invoke("check", "--help").output


def test_of_a_large_network_the_suspects_are_listed(invoke, networks, monkeypatch):
    typed = ["check", "--model", f"{networks}:good", "--channels", 2]
    inner = "0        Conv2d"
    assert inner in invoke(*typed).stdout
    assert inner not in invoke(*typed, "--parts", "suspect").stdout
    monkeypatch.setattr("gconv_ga.cli._check_command.LARGE", 9)  # it has 2 * 3 weights and 3
    shown = invoke(*typed)
    assert "Sequential is equivariant under C4." in shown.stdout
    assert "--parts all tests them too" in shown.stdout
    assert inner not in shown.stdout
    assert inner in invoke(*typed, "--parts", "all").stdout
    broken = invoke("check", "--model", f"{networks}:bad", "--channels", 2, code=1).stdout
    assert "not equivariant under C4, because of 1." in broken
    assert inner in broken, "inside a part that is broken each is tested"
