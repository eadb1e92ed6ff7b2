"""Networks that people use, and what `convert` makes of them.

    python tests/network_catalogue.py                    # all whose packages are installed; long
    python tests/network_catalogue.py --only timm/ --out found.txt

Prints one line for each: "converts", with how many convolutions can be opened; the first words of the refusal; or
"WRONG", if the network was accepted and differs from its average, which is computed here by itself at a third size.
`OUTCOMES`, beside this file, is what was found with torchvision 0.29.1, timm 1.0.31, segmentation_models_pytorch 0.6.0,
MONAI 1.6.1, kornia 0.9.0, cellpose 3.1.1 (4 has no convolutional network) and transformers 5.24.0;
`conversion/test_network_catalogue.py` compares a sample.
"""

import argparse
import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from conversion_nets import image
from slow_average import elements, turn, turn_back
from torch import Tensor, nn

from gconv_ga.conversion import NotConvertible, convert

OUTCOMES = Path(__file__).with_name("network_outcomes.txt")


class Network(NamedTuple):
    """A network: its package and name, how it is made, its channels, and a size that it takes."""

    package: str
    name: str
    make: Callable[[Any], nn.Module]
    channels: int = 3
    size: tuple[int, int] = (32, 48)
    third: tuple[int, int] = (64, 32)

    @property
    def label(self) -> str:
        """What names it in the table."""
        return f"{self.package}/{self.name}"


def _torchvision() -> Iterator[Network]:
    plain = [
        "resnet18", "resnet50", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
        "efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s", "convnext_tiny", "densenet121", "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0", "mnasnet0_5", "mnasnet1_0", "regnet_x_400mf", "regnet_y_400mf", "swin_t", "swin_v2_t",
        "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg11_bn",
    ]  # fmt: skip
    for name in plain:
        yield Network("torchvision", name, lambda m, name=name: getattr(m.models, name)(num_classes=5))
    larger = {"alexnet": {}, "googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
    for name, options in larger.items():
        yield Network(
            "torchvision", name,
            lambda m, name=name, options=options: getattr(m.models, name)(num_classes=5, **options),
            size=(75, 80), third=(80, 76),
        )  # fmt: skip
    yield Network(
        "torchvision", "vit", size=(32, 32), third=(32, 32),
        make=lambda m: m.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5),
    )  # fmt: skip
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        yield Network(
            "torchvision", name,
            lambda m, name=name: getattr(m.models.segmentation, name)(
                weights=None, weights_backbone=None, num_classes=3
            ),
        )  # fmt: skip
    yield Network("torchvision", "fasterrcnn", lambda m: m.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3))  # fmt: skip


def _timm() -> Iterator[Network]:
    names = [
        "resnet10t", "resnet14t", "resnet18d", "resnet26d", "resnetblur50", "resnetaa34d", "legacy_seresnet18",
        "seresnext26d_32x4d", "ecaresnet26t", "skresnet18", "resnest14d", "resnetv2_18", "resnetv2_50x1_bit",
        "res2net50_14w_8s", "resnext26ts", "gcresnext26ts",
        "lambda_resnet26t", "eca_resnext26ts", "regnetx_002", "regnety_002", "regnetz_005", "regnetv_040",
        "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small_035",
        "mobilenetv4_hybrid_medium", "tf_mobilenetv3_small_minimal_100", "efficientnet_lite0", "efficientnet_es",
        "tf_efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnetv2_b0", "efficientnet_b0_gn", "fbnetc_100",
        "spnasnet_100", "mnasnet_small", "semnasnet_075", "lcnet_035", "tinynet_e", "hardcorenas_a", "mixnet_s",
        "tf_mixnet_s", "rexnet_100", "rexnetr_100", "ghostnet_050", "ghostnetv2_100", "repghostnet_050", "repvgg_a0",
        "mobileone_s0", "dla34", "dla46_c", "dla60_res2net", "hrnet_w18_small", "densenet121", "ese_vovnet19b_slim",
        "cspresnet50", "darknet17", "cs3darknet_s", "xception41", "dpn48b", "nf_resnet26", "nf_regnet_b0",
        "eca_nfnet_l0", "dm_nfnet_f0", "selecsls42", "hgnetv2_b0", "gernet_s", "tresnet_m", "convnext_atto",
        "convnext_atto_ols", "convnextv2_atto", "convmixer_1024_20_ks9_p14", "poolformer_s12", "poolformerv2_s12",
        "edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050",
        "efficientvit_b0", "efficientvit_m0", "fastvit_t8", "fasternet_t0", "inception_next_atto", "repvit_m0_9",
        "starnet_s050", "shvit_s1", "pvt_v2_b0", "focalnet_tiny_srf",
        "xcit_nano_12_p16_224", "inception_v4",
        "inception_resnet_v2", "vgg11", "nextvit_small", "twins_svt_small", "mambaout_femto",
        "swiftformer_xs",

    ]  # fmt: skip
    for name in names:
        large = name.startswith(("ghostnetv2", "inception_v4", "inception_resnet"))
        size, third = ((128, 96), (96, 160)) if large else ((32, 64), (64, 32))
        yield Network(
            "timm", name, lambda m, name=name: m.create_model(name, num_classes=5), size=size, third=third
        )  # fmt: skip
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s32_224", "resmlp_12_224", "cait_xxs24_224",
                 "pit_ti_224", "swin_tiny_patch4_window7_224", "beit_base_patch16_224"):  # fmt: skip
        yield Network(
            "timm", name + " square", lambda m, name=name: m.create_model(name, num_classes=5, img_size=64),
            size=(64, 64), third=(64, 64),
        )  # fmt: skip
    for name in ("resnet18", "mobilenetv3_small_050", "convnext_atto", "tf_efficientnet_b0"):
        yield Network(
            "timm", name + " features", lambda m, name=name: m.create_model(name, features_only=True),
            size=(32, 64), third=(64, 32),
        )  # fmt: skip


def _smp() -> Iterator[Network]:
    pairs = [(name, "resnet18") for name in (
        "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
        "Segformer")]  # fmt: skip
    pairs += [("Unet", encoder) for encoder in (
        "mobilenet_v2", "efficientnet-b0", "timm-efficientnet-b0", "timm-regnetx_002", "timm-skresnet18", "densenet121",
        "vgg11", "mobileone_s0", "mit_b0", "tu-mobilenetv3_small_050", "tu-convnext_atto", "tu-resnest14d",
        "timm-mobilenetv3_small_075", "timm-res2net50_26w_4s", "dpn68", "tu-tf_efficientnetv2_b0")]  # fmt: skip
    pairs += [("FPN", "efficientnet-b0"), ("Segformer", "mit_b0"), ("DeepLabV3Plus", "mobilenet_v2")]
    for name, encoder in pairs:
        yield Network(
            "segmentation_models_pytorch", f"{name} {encoder}",
            lambda m, name=name, encoder=encoder: getattr(m, name)(encoder, encoder_weights=None, classes=2),
            size=(64, 128) if name == "FPN" else (32, 64), third=(64, 32),
        )  # fmt: skip


def _monai() -> Iterator[Network]:
    flat = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2}
    makers: dict[str, Callable[[Any], nn.Module]] = {
        "UNet": lambda n: n.UNet(**flat, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
        "BasicUNet": lambda n: n.BasicUNet(**flat, features=(8, 8, 16, 16, 32, 8)),
        "BasicUNet pixelshuffle": lambda n: n.BasicUNet(
            **flat, features=(8, 8, 16, 16, 32, 8), upsample="pixelshuffle"
        ),
        "BasicUNet nontrainable": lambda n: n.BasicUNet(
            **flat, features=(8, 8, 16, 16, 32, 8), upsample="nontrainable"
        ),
        "BasicUNetPlusPlus": lambda n: n.BasicUNetPlusPlus(**flat, features=(8, 8, 16, 16, 32, 8)),
        "AttentionUnet": lambda n: n.AttentionUnet(**flat, channels=(8, 16, 32), strides=(2, 2)),
        "SegResNet": lambda n: n.SegResNet(**flat, init_filters=8),
        "SegResNetDS": lambda n: n.SegResNetDS(**flat, init_filters=8),
        "DynUNet": lambda n: n.DynUNet(
            **flat, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 32]
        ),
        "VNet": lambda n: n.VNet(spatial_dims=2, in_channels=1, out_channels=2),
        "HighResNet": lambda n: n.HighResNet(**flat),
        "DenseNet121": lambda n: n.DenseNet121(**flat),
        "EfficientNetBN": lambda n: n.EfficientNetBN(
            "efficientnet-b0", spatial_dims=2, in_channels=3, num_classes=2, pretrained=False
        ),
        "FlexibleUNet": lambda n: n.FlexibleUNet(in_channels=3, out_channels=2, backbone="efficientnet-b0"),
        "ResNet": lambda n: n.resnet18(spatial_dims=2, n_input_channels=3, num_classes=2),
        "SEResNet50": lambda n: n.SEResNet50(spatial_dims=2, in_channels=3, num_classes=2),
        "AutoEncoder": lambda n: n.AutoEncoder(**flat, channels=(8, 16), strides=(2, 2)),
        "VarAutoEncoder": lambda n: n.VarAutoEncoder(
            2, (3, 32, 32), 2, 4, channels=(8, 16), strides=(2, 2)
        ),
        "AutoencoderKL": lambda n: n.AutoencoderKL(
            spatial_dims=2, in_channels=3, out_channels=3, num_res_blocks=(1, 1), channels=(8, 16),
            attention_levels=(False, True), latent_channels=4, norm_num_groups=4,
        ),
        "PatchDiscriminator": lambda n: n.PatchDiscriminator(2, 8, 3, 1, num_layers_d=2),
        "RegUNet": lambda n: n.RegUNet(2, 3, 4, 2, out_channels=2, out_kernel_initializer="kaiming_uniform"),
        "QuickNAT": lambda n: n.Quicknat(num_classes=2, num_channels=3, num_filters=8),
        "Classifier": lambda n: n.Classifier((3, 32, 32), 2, (4, 8), (2, 2)),
        "Regressor": lambda n: n.Regressor((3, 32, 32), (2,), (4, 8), (2, 2)),
        "Discriminator": lambda n: n.Discriminator((3, 32, 32), (4, 8), (2, 2)),
        "UNETR": lambda n: n.UNETR(
            in_channels=3, out_channels=2, img_size=(32, 32), feature_size=8, hidden_size=48, mlp_dim=64, num_heads=4,
            spatial_dims=2,
        ),
        "SwinUNETR": lambda n: n.SwinUNETR(
            in_channels=3, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)
        ),
        "ViT": lambda n: n.ViT(3, (32, 32), (8, 8), 48, 64, 2, 4, classification=True, spatial_dims=2),
        "MedNeXt": lambda n: n.MedNeXtSmall(spatial_dims=2, in_channels=3, out_channels=2),
    }  # fmt: skip
    for name, make in makers.items():
        square = name in ("UNETR", "ViT", "Classifier", "Regressor", "Discriminator", "VarAutoEncoder")
        size = (32, 32) if square else (64, 96) if name == "SwinUNETR" else (32, 64)
        yield Network(
            "monai", name, lambda m, make=make: make(importlib.import_module("monai.networks.nets")),
            channels=1 if name == "VNet" else 3, size=size, third=size[::-1],
        )  # fmt: skip


def _kornia() -> Iterator[Network]:
    features = ("HardNet", "SOSNet", "TFeat", "HyNet")
    for name in features:
        yield Network(
            "kornia", name, lambda m, name=name: getattr(importlib.import_module("kornia.feature"), name)(False),
            1, (32, 32), (32, 32),
        )  # fmt: skip
    for name in ("KeyNet", "DISK"):
        yield Network(
            "kornia", name,
            lambda m, name=name: getattr(importlib.import_module("kornia.feature"), name)(
                **({"pretrained": False} if name == "KeyNet" else {})
            ),
            1 if name == "KeyNet" else 3, (32, 48), (48, 32),
        )  # fmt: skip


def _cellpose() -> Iterator[Network]:
    def make(module: Any) -> nn.Module:
        return importlib.import_module("cellpose.resnet_torch").CPnet([2, 8, 16, 32], 3, 3)

    yield Network("cellpose", "CPnet", make, 2, (64, 96), (64, 64))


def _transformers() -> Iterator[Network]:
    def of(config: str, network: str, **options: Any) -> Callable[[Any], nn.Module]:
        return lambda m: getattr(m, network)(getattr(m, config)(num_labels=2, **options))

    small = {"hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 1, 1]}
    yield Network("transformers", "ResNet", of("ResNetConfig", "ResNetForImageClassification", **small))
    yield Network("transformers", "ConvNext", of("ConvNextConfig", "ConvNextForImageClassification", **small))
    yield Network("transformers", "MobileNetV2", of("MobileNetV2Config", "MobileNetV2ForImageClassification"))
    yield Network("transformers", "RegNet", of("RegNetConfig", "RegNetForImageClassification", **small))
    yield Network(
        "transformers", "Segformer",
        of("SegformerConfig", "SegformerForSemanticSegmentation", hidden_sizes=[8, 16, 32, 32], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16),
    )  # fmt: skip


def networks() -> list[Network]:
    """Return all networks."""
    return [*_torchvision(), *_timm(), *_smp(), *_monai(), *_kornia(), *_cellpose(), *_transformers()]


def read_outcomes() -> dict[str, str]:
    """Return what is on record for each network: "converts", or "refused: " with words of the message."""
    lines = OUTCOMES.read_text().splitlines() if OUTCOMES.exists() else []
    return dict(line.split(" | ") for line in lines if line and not line.startswith("#"))


def outcome_of(network: Network, group: str = "C4") -> str:
    """Convert, and return in words what came of it."""
    torch.manual_seed(0)
    model = network.make(importlib.import_module(network.package)).double().eval()
    example = image(1, network.channels, *network.size)
    try:
        net = convert(model, group, example, out_action="scalar")
    except (NotConvertible, ValueError, RuntimeError) as error:
        kind = "refused" if isinstance(error, NotConvertible) else type(error).__name__
        return f"{kind}: {str(error)[:2000]}"
    x = image(2, network.channels, *network.third, seed=5)
    with torch.no_grad():
        parts = zip(tensors(net(x)), *(tensors(model(turn_back(x, g))) for g in elements(group)), strict=True)
        for mine, *orbit in parts:
            rotated = [turn(y, g) if y.ndim >= 3 else y for y, g in zip(orbit, elements(group), strict=True)]
            expected = sum(rotated[1:], rotated[0]) / len(rotated)
            if not (mine - expected).abs().max() <= 1e-8 * expected.abs().max():
                return f"WRONG by {float((mine - expected).abs().max() / expected.abs().max()):.0e}"
    return f"converts, {len(net.convolutions())} can be opened"


def tensors(nest: Any) -> list[Tensor]:
    """Return the tensors of an output."""
    if isinstance(nest, Tensor):
        return [nest]
    parts = nest.values() if hasattr(nest, "values") else nest if isinstance(nest, tuple | list) else ()
    return [x for part in parts for x in tensors(part)]


def main() -> None:
    """Print what becomes of each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="networks whose label starts so")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    recorded = read_outcomes()
    for network in networks():
        if not network.label.startswith(tuple(options.only)):
            continue
        start = time.process_time()
        try:
            outcome = outcome_of(network)
        except Exception as error:  # noqa: BLE001  the package is absent, or cannot make the network
            outcome = f"ERROR {type(error).__name__}: {str(error)[:300]}"
        kind, _, words = recorded.get(network.label, "").partition(": ")
        if not outcome.startswith(kind) or words not in outcome:
            outcome += f" | ON RECORD: {kind} {words}"
        line = " ".join(f"{network.label} | {outcome}".split()) + f" | {time.process_time() - start:.1f} s"
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
