"""``gconv-ga export``: the file gives what the checkpoint gives, at other sizes too, or there is none."""

import json
from importlib.util import find_spec

import pytest
import torch

from gconv_ga.segmenter import load_checkpoint

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the extra onnx is not installed",
)


@needs_onnx
def test_the_file_gives_what_the_checkpoint_gives(invoke, balanced, tmp_path):
    import onnxruntime

    result = invoke("export", "--run", balanced["EquivariantUNet"], "--out", tmp_path / "net.onnx")
    assert "differs from the checkpoint by" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    model, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    image = torch.randn(2, 1, 51, 30)
    with torch.no_grad():
        expected = model(image)
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    assert (torch.from_numpy(logits) - expected).abs().max() < 1e-5 * expected.abs().max()
    kept = session.get_modelmeta().custom_metadata_map["gconv_ga"]
    assert json.loads(kept) == json.loads(config.to_json())


@pytest.mark.parametrize("name", ["EquivariantUNet", "UNet"])
def test_the_program_of_torch_gives_what_the_checkpoint_gives(name, invoke, balanced, tmp_path):
    result = invoke("export", "--run", balanced[name], "--out", tmp_path / "net.pt2")
    assert "differs from the checkpoint by" in result.stdout
    kept = {"gconv_ga": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=kept).module()
    model, config, _ = load_checkpoint(balanced[name])
    image = torch.randn(3, 1, 37, 44)
    with torch.no_grad():
        expected = model(image)
        assert (program(image) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert json.loads(kept["gconv_ga"]) == json.loads(config.to_json())


def test_a_file_that_differs_is_not_written(invoke, balanced, tmp_path, monkeypatch):
    import gconv_ga.conversion

    fold = gconv_ga.conversion.fold

    def wrong(model):
        folded = fold(model)
        folded.segmentation_head.bias.add_(0.1)
        return folded

    monkeypatch.setattr(gconv_ga.conversion, "fold", wrong)
    result = invoke("export", "--run", balanced["UNet"], "--out", tmp_path / "net.pt2", code=1)
    assert "differs from the checkpoint by" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "option", "said"),
    [
        (["--out", "net.pt"], "--out", "does not end in .onnx or .pt2"),
        (["--run", "nowhere"], "--run", "There is no such file"),
        (["--run", __file__], "--run", "not an intact safetensors file"),
    ],
)
def test_a_wrong_option_is_named(typed, option, said, invoke, balanced, tmp_path):
    typed = [part.format(**balanced) for part in typed]
    result = invoke("export", "--run", balanced["EquivariantUNet"], "--out", tmp_path / "a.onnx", *typed, code=2)
    assert option in result.stderr
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example(invoke):
    assert "Example: gconv-ga export --run" in invoke("export", "--help").output
