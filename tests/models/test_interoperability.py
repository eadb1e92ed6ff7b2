"""Common uses of models of segmentation_models_pytorch, tried on one of them and on ours."""

import pytest
import torch
from torch import nn

from gconv_ga.models import EquivariantUNet, UNet

smp = pytest.importorskip("segmentation_models_pytorch")

MODELS = {
    "smp": lambda: smp.Unet("resnet18", encoder_weights=None, in_channels=2, classes=3),
    "equivariant": lambda: EquivariantUNet(2, 3, group="D4", width=2, depth=3),
    "max": lambda: EquivariantUNet(2, 3, group="C4", width=2, depth=3, reduction="max"),
    "plain": lambda: UNet(2, 3, width=2, depth=3),
}
OURS = [name for name in MODELS if name != "smp"]


@pytest.fixture(params=list(MODELS))
def model(request):
    return MODELS[request.param]()


def test_the_parts_in_turn_give_the_logits(model, generator):
    model.eval()
    x = torch.randn(1, 2, 32, 64, generator=generator)
    features = model.encoder(x)
    logits = model.segmentation_head(model.decoder(features))
    assert logits.shape == (1, 3, 32, 64)
    assert torch.equal(logits, model(x))
    assert not torch.equal(logits, model.segmentation_head(model.decoder([part.flip(-1) for part in features])))


def test_every_weight_belongs_to_one_part(model):
    parts = (model.encoder, model.decoder, model.segmentation_head)
    owned = [parameter for part in parts for parameter in part.parameters()]
    assert {id(each) for each in owned} == {id(each) for each in model.parameters()}
    assert len(owned) == len({id(each) for each in owned})


def test_the_encoder_can_be_frozen_and_the_rest_trained(model, generator):
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    rates = [{"params": model.decoder.parameters(), "lr": 0.1}, {"params": model.segmentation_head.parameters()}]
    optimizer = torch.optim.SGD(rates, lr=0.2)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    model(torch.randn(2, 2, 32, 32, generator=generator)).square().mean().backward()
    optimizer.step()
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, before[name]) == name.startswith("encoder."), name


def test_the_head_can_be_replaced(model, generator):
    width = next(each for each in model.segmentation_head.modules() if isinstance(each, nn.Conv2d)).in_channels
    model.segmentation_head = nn.Conv2d(width, 5, 1)
    assert model(torch.randn(2, 2, 32, 32, generator=generator)).shape == (2, 5, 32, 32)


@pytest.mark.parametrize("name", OURS)
def test_what_it_was_built_for_can_be_read_off(name):
    net = MODELS[name]()
    assert (net.in_channels, net.classes) == (2, 3)
    features = net.encoder(torch.zeros(1, 2, 32, 32))
    assert tuple(each.shape[1] for each in features) == net.encoder.out_channels == (2, 4, 8)


@pytest.mark.parametrize("name", ["smp", *OURS])
def test_a_loss_and_a_training_step_of_smp(name, generator):
    net = MODELS[name]()
    loss = smp.losses.DiceLoss("multiclass")
    x, masks = torch.randn(2, 2, 32, 32, generator=generator), torch.zeros(2, 32, 32, dtype=torch.int64)
    loss(net(x), masks).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
