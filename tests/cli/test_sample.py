"""``gconv-ga sample``: the files are those of the package, and a training takes them."""

import pytest
import torch

from gconv_ga.images import PairDataset, find_images, load_sample, match_masks, write_sample


@pytest.mark.parametrize("name", ["nuclei", "histology"])
def test_the_files_are_the_sample(name, invoke, tmp_path):
    said = invoke("sample", "--out", tmp_path / "files", "--data", name).stdout
    sample = load_sample(name)
    for part, own in (("train", sample.train), ("test", sample.test)):
        folder = tmp_path / "files" / part
        pairs, problems = match_masks(find_images(folder / "images"), folder / "masks")
        assert not problems
        assert f"{len(pairs)} in {folder}" in said
        dataset = PairDataset(pairs, sample.normalization)
        images, masks = (
            torch.stack(each) for each in zip(*(dataset[index] for index in range(len(pairs))), strict=True)
        )
        assert torch.equal(images, own.images)
        assert torch.equal(masks, own.masks)


def test_files_that_are_there_are_left_alone(invoke, tmp_path):
    write_sample("nuclei", tmp_path)
    file = next((tmp_path / "train" / "images").iterdir())
    file.write_bytes(b"mine")
    for name in ("nuclei", "histology"):
        result = invoke("sample", "--out", tmp_path, "--data", name, code=2)
        assert "'--out': folder must be one without files of the sample" in result.stderr
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(("option", "value"), [("--data", "cats"), ("--out", __file__)])
def test_a_wrong_option_is_named(option, value, invoke, tmp_path):
    result = invoke("sample", "--out", tmp_path / "files", option, value, code=2)
    assert option in result.stderr
    assert not (tmp_path / "files").exists()


def test_a_sample_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^name must be one of 'nuclei', 'histology', but got name='cats'"):
        write_sample("cats", tmp_path)


def test_help_shows_an_example(invoke):
    assert "Example: gconv-ga sample --out" in invoke("sample", "--help").output


def test_of_a_sample_that_cannot_be_written_nothing_is_left(tmp_path):
    (tmp_path / "test").write_text("a file where a folder is needed")
    with pytest.raises(OSError, match="test"):
        write_sample("nuclei", tmp_path)
    assert not [path for path in (tmp_path / "train").rglob("*") if path.is_file()]
    (tmp_path / "test").unlink()
    write_sample("nuclei", tmp_path)
