"""A new head begins at the classes' shares of the pixels."""

import math
from pathlib import Path

import pytest
import torch

from gconv_ga import GroupAverage, convert
from gconv_ga.models import EquivariantUNet, UNet
from gconv_ga.segmenter import SegmenterConfig
from gconv_ga.train import start_at_frequencies

MASKS = torch.tensor([[[0, 0, 1], [0, 2, 0]], [[0, 0, 0], [1, 0, 0]]])  # 9 of class 0, 2 of 1, 1 of 2


def plain() -> UNet:
    return UNet(1, 3, width=2, depth=2)


NETS = {
    "plain": plain,
    "equivariant": lambda: EquivariantUNet(1, 3, group="D4", width=1, depth=2),
    "averaged": lambda: GroupAverage(plain(), "C4"),
    "converted": lambda: convert(plain(), "C4", torch.randn(1, 1, 12, 10)),
}


@pytest.mark.parametrize("name", NETS)
def test_of_an_image_that_says_nothing_the_network_says_the_shares(name: str) -> None:
    net = NETS[name]().eval()
    x = torch.randn(1, 1, 12, 10)
    with torch.no_grad():
        before = net(x)
    start_at_frequencies(net, MASKS)
    shares = torch.tensor([10, 3, 2]) / 15  # one more pixel each
    biases = {key: value for key, value in net.named_parameters() if key.endswith("segmentation_head.bias")}
    assert len(biases) == 1
    (bias,) = biases.values()
    torch.testing.assert_close(bias.detach().exp(), shares)
    with torch.no_grad():
        moved = net(x) - before  # the rest of the network is as it was: all logits of a class move alike
    torch.testing.assert_close(moved, moved[..., :1, :1].expand_as(moved), rtol=0, atol=1e-5)


def test_ignored_pixels_do_not_count() -> None:
    net = plain()
    start_at_frequencies(net, MASKS.where(MASKS != 0, 255), ignore_index=255)
    torch.testing.assert_close(net.segmentation_head.bias.detach().exp(), torch.tensor([1, 3, 2]) / 6)


def test_bands_say_what_whole_masks_say() -> None:
    whole, bands = plain(), plain()
    start_at_frequencies(whole, MASKS)
    start_at_frequencies(bands, (row for mask in MASKS for row in mask.split(1)))
    assert torch.equal(whole.segmentation_head.bias, bands.segmentation_head.bias)


def test_networks_of_smp_have_such_a_head() -> None:
    arguments = {"name": "Unet", "encoder": "mobilenet_v2", "group": "C4", "in_channels": 1, "classes": 3}
    from gconv_ga.images import Normalization

    net = SegmenterConfig("smp", arguments, ("a", "b", "c"), Normalization([0.0], [1.0])).build()
    start_at_frequencies(net, MASKS)
    found = [value for key, value in net.named_parameters() if "segmentation_head" in key and key.endswith("bias")]
    torch.testing.assert_close(found[-1].detach().exp(), torch.tensor([10, 3, 2]) / 15)


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="model must be a network whose segmentation_head has a bias"):
        start_at_frequencies(torch.nn.Conv2d(1, 3, 1), MASKS)


def test_a_class_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="masks must be class indices below 3"):
        start_at_frequencies(plain(), MASKS.where(MASKS != 1, 3))


@pytest.mark.parametrize("kept", [False, True], ids=["new head", "head of a checkpoint"])
def test_a_run_begins_there_unless_its_head_is_trained(kept: bool, sample, config, tmp_path) -> None:
    import gconv_ga.images
    from gconv_ga.images import find_images, match_masks, read_mask
    from gconv_ga.train import RunConfig, train_run

    folder = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"
    pairs, _ = match_masks(find_images(folder / "images")[:2], folder / "masks")
    first = config.build(seed=7).state_dict()
    run = RunConfig(
        config, {"00": "train", "01": "val"}, steps=1, batch_size=1, crop=16, learning_rate=1e-9,
        init="sha256:0" if kept else None,
    )  # fmt: skip
    model = train_run(tmp_path / "run", run, pairs, init=first if kept else None)
    share = float(read_mask(folder / "masks" / "00.png").eq(1).double().mean())
    log_odds = model.segmentation_head.bias.detach().diff().item()
    if kept:
        assert log_odds == pytest.approx(float(first["segmentation_head.bias"].diff()), abs=1e-6)
    else:
        assert log_odds == pytest.approx(math.log(share / (1 - share)), abs=1e-3)
