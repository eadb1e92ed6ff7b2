"""Converted well-known networks equal the average written out with torch.rot90, at another size too."""

import pytest
import torch
from conversion_nets import image, of_smp, of_timm, of_torchvision, randomised, segmenter_of_torchvision
from slow_average import elements, relative, slow_average, turn, turn_back
from tolerances import TOLERANCES
from torch import nn

from gconv_ga.conversion import convert

# A narrow encoder and decoder: what is checked is the wiring, and `convert` takes as long as there are weights.
NARROW = "tu-tf_mobilenetv3_small_minimal_100"
CHANNELS = {"decoder_channels": (32, 32, 16, 16, 16)}
# name, factory, the example's size, another size
CLASSIFIERS = [
    ("resnet18", of_torchvision("resnet18"), (33, 40), (48, 31)),
    ("mobilenet_v3_small", of_torchvision("mobilenet_v3_small"), (33, 48), (40, 40)),
    ("efficientnet_b0", of_torchvision("efficientnet_b0"), (32, 50), (37, 37)),
    ("convnext_tiny", of_torchvision("convnext_tiny"), (35, 48), (33, 33)),
    ("densenet121", of_torchvision("densenet121"), (32, 40), (47, 33)),
    ("shufflenet_v2_x0_5", of_torchvision("shufflenet_v2_x0_5"), (33, 40), (32, 32)),
    ("squeezenet1_1", of_torchvision("squeezenet1_1"), (34, 40), (41, 41)),
    ("googlenet", of_torchvision("googlenet", aux_logits=False, init_weights=False), (32, 45), (40, 40)),
    ("inception_v3", of_torchvision("inception_v3", aux_logits=False, init_weights=False), (75, 80), (76, 76)),
    ("timm resnet26d", of_timm("resnet26d", num_classes=5), (33, 40), (48, 31)),
    ("timm resnetaa34d", of_timm("resnetaa34d", num_classes=5), (32, 64), (32, 32)),
    ("timm regnety_002", of_timm("regnety_002", num_classes=5), (32, 50), (45, 45)),
    ("timm convnext_atto", of_timm("convnext_atto", num_classes=5), (35, 48), (33, 33)),
    ("timm tf_efficientnet_b0", of_timm("tf_efficientnet_b0", num_classes=5), (32, 45), (37, 40)),
    ("timm hrnet_w18_small", of_timm("hrnet_w18_small", num_classes=5), (32, 64), (32, 32)),
    ("timm poolformer_s12", of_timm("poolformer_s12", num_classes=5), (32, 48), (39, 39)),
    ("timm resnetv2_50x1_bit", of_timm("resnetv2_50x1_bit", num_classes=5), (33, 40), (32, 32)),
    ("timm mobilenetv2_050", of_timm("mobilenetv2_050", num_classes=5), (33, 40), (48, 31)),
]
SEGMENTERS = [
    ("deeplabv3", segmenter_of_torchvision("deeplabv3_mobilenet_v3_large"), (33, 48), (40, 40)),
    ("lraspp", segmenter_of_torchvision("lraspp_mobilenet_v3_large"), (33, 48), (40, 40)),
    ("smp Unet", of_smp("Unet"), (32, 64), (64, 32)),
    ("smp Unet bilinear", of_smp("Unet", NARROW, decoder_interpolation="bilinear", **CHANNELS), (32, 64), (32, 32)),
    ("smp Unet scse", of_smp("Unet", NARROW, decoder_attention_type="scse", **CHANNELS), (32, 64), (32, 32)),
    ("smp UnetPlusPlus", of_smp("UnetPlusPlus", NARROW, **CHANNELS), (32, 64), (32, 32)),
    ("smp FPN", of_smp("FPN", NARROW), (32, 64), (32, 32)),
    ("smp DeepLabV3", of_smp("DeepLabV3", NARROW, decoder_channels=32), (32, 64), (32, 32)),
    ("smp DeepLabV3Plus", of_smp("DeepLabV3Plus", NARROW, decoder_channels=32), (32, 64), (32, 32)),
    ("smp Linknet", of_smp("Linknet", NARROW), (32, 64), (64, 32)),
    ("smp PSPNet", of_smp("PSPNet", NARROW), (32, 64), (40, 40)),
    ("smp UPerNet", of_smp("UPerNet", NARROW, decoder_channels=32), (32, 64), (32, 32)),
    ("smp Segformer", of_smp("Segformer", NARROW, decoder_segmentation_channels=32), (32, 64), (32, 32)),
]


def mask_of(model: nn.Module) -> nn.Module:
    """torchvision's segmenters return a dict."""

    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segmenter = model

        def forward(self, x):
            y = self.segmenter(x)
            return y["out"] if isinstance(y, dict) else y

    return Mask()


@pytest.mark.parametrize(("name", "make", "size", "other"), CLASSIFIERS, ids=[case[0] for case in CLASSIFIERS])
@torch.no_grad()
def test_a_classifier_is_its_average(name, make, size, other):
    model = randomised(make(), image(1, 3, *size))
    net = convert(model, "C4", image(1, 3, *size))
    assert net.report.defect <= TOLERANCES[torch.float64]
    x = image(1, 3, *other, seed=5)
    expected = sum(model(turn_back(x, g)) for g in elements("C4")) / 4
    assert relative(net(x), expected) <= TOLERANCES[torch.float64]
    assert relative(model(x), expected) > 1e-3, "a network that is invariant already is no evidence"


@pytest.mark.parametrize(("name", "make", "size", "other"), SEGMENTERS, ids=[case[0] for case in SEGMENTERS])
@torch.no_grad()
def test_a_segmenter_is_its_average(name, make, size, other):
    model = randomised(mask_of(make()), image(1, 3, *size))
    net = convert(model, "C4", image(1, 3, *size))
    assert net.report.defect <= TOLERANCES[torch.float64]
    x = image(1, 3, *other, seed=5)
    expected = slow_average(model, "C4", x)
    assert relative(net(x), expected) <= TOLERANCES[torch.float64]
    assert relative(model(x), expected) > 1e-3


@pytest.mark.parametrize("group", ["C2", "D1", "D2", "D4"])
@torch.no_grad()
def test_other_groups_on_a_network_that_people_use(group):
    model = randomised(of_smp("Unet", NARROW, **CHANNELS)(), image(1, 3, 32, 64))
    net = convert(model, group, image(1, 3, 32, 64))
    x = image(1, 3, 64, 32, seed=5)
    assert relative(net(x), slow_average(model, group, x)) <= TOLERANCES[torch.float64]


@torch.no_grad()
def test_a_pyramid_of_features():
    """Five levels in a list, each rotated back by itself."""
    model = randomised(of_timm("resnet18", features_only=True)(), image(1, 3, 33, 40))
    net = convert(model, "C4", image(1, 3, 33, 40))
    x = image(1, 3, 48, 31, seed=5)
    orbit = [model(turn_back(x, g)) for g in elements("C4")]
    levels = net(x)
    assert len(levels) == 5
    for level, maps in zip(levels, zip(*orbit, strict=True), strict=True):
        expected = sum(turn(y, g) for y, g in zip(maps, elements("C4"), strict=True)) / 4
        assert relative(level, expected) <= TOLERANCES[torch.float64]


@torch.no_grad()
def test_it_is_what_test_time_augmentation_gives():
    """An independent implementation: ttach, on square images."""
    ttach = pytest.importorskip("ttach")
    model = randomised(of_smp("Unet", NARROW, **CHANNELS)(), image(2, 3, 32, 32))
    x = image(2, 3, 32, 32)
    for group, transforms in (
        ("C4", ttach.Compose([ttach.Rotate90([0, 90, 180, 270])])),
        ("D4", ttach.aliases.d4_transform()),
    ):
        expected = ttach.SegmentationTTAWrapper(model, transforms, merge_mode="mean")(x)
        assert relative(convert(model, group, x)(x), expected) <= TOLERANCES[torch.float64]
