"""A sample of the catalogue of networks, one for each kind of outcome; `network_catalogue.py` runs all of them."""

import importlib
import warnings

import pytest
from network_catalogue import networks, outcome_of, read_outcomes

OUTCOMES = read_outcomes()
SAMPLE = [
    "timm/resnet14t",
    "timm/convnext_atto",
    "timm/eca_resnext26ts",
    "timm/mobilevit_xxs",
    "timm/resnet18 features",
    "torchvision/vit",
    "torchvision/shufflenet_v2_x0_5",
    "segmentation_models_pytorch/Unet mobileone_s0",
    "monai/BasicUNet pixelshuffle",
    "monai/AutoencoderKL",
    "monai/DynUNet",
    "kornia/KeyNet",
    "kornia/DISK",
    "cellpose/CPnet",
    "transformers/Segformer",
]


def test_every_network_has_an_outcome_and_none_is_wrong():
    labels = [network.label for network in networks()]
    assert sorted(labels) == sorted(OUTCOMES)
    assert len(set(labels)) == len(labels)
    assert not [label for label, outcome in OUTCOMES.items() if not outcome.startswith(("converts", "refused: "))]


@pytest.mark.parametrize("label", SAMPLE)
def test_a_network_has_the_outcome_that_is_on_record(label):
    (network,) = [each for each in networks() if each.label == label]
    # Some packages cannot be imported beside others of another age.
    pytest.importorskip(network.package, exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say about themselves
        importlib.import_module(network.package)
        outcome = outcome_of(network)
    kind, _, words = OUTCOMES[label].partition(": ")
    assert outcome.startswith(kind)
    assert words in outcome
