"""Gradients of every public layer: against finite differences, all parameters reached, first and second order."""

import pytest
import torch
from layer_catalogue import CATALOGUE, CONVOLUTIONS, LEARNING, REPRESENTATIVES, USES, scrambled
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call


def function_and_arguments(name, group, size):
    """Return the layer as a function of its input and its parameters, all of which require gradients."""
    use = USES[name]
    layer = scrambled(use.make(group))
    names, parameters = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())

    def function(x, *parameters):
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = use.input(group, size, batch=1)
    return function, tuple(t.detach().requires_grad_() for t in (x, *parameters))


@pytest.mark.parametrize("name", USES)
def test_gradients_are_finite_differences(name):
    # Even and not square: each orientation has its own grid.
    function, arguments = function_and_arguments(name, "C4", (4, 5) if "dilation" not in name else (6, 5))
    assert gradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_entry_of_the_jacobian_is_right(name):
    function, (x, *parameters) = function_and_arguments(name, "C2", (2, 3))
    assert gradcheck(function, (x, *parameters))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_second_gradients_are_finite_differences(name):
    function, arguments = function_and_arguments(name, "C4", (4, 5) if "dilation" not in name else (6, 5))
    assert gradgradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("name", LEARNING)
def test_every_parameter_learns(name, device):
    """No parameter is without a gradient, which DistributedDataParallel would refuse."""
    use = USES[name]
    layer = use.make("D4").to(device).train()
    x = use.input("D4", (8, 11), dtype=torch.float32).to(device)
    y = layer(x)
    (y * torch.randn(y.shape).to(device)).sum().backward()
    gradients = {key: parameter.grad for key, parameter in layer.named_parameters()}
    assert len(gradients) >= 1
    assert [key for key, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_every_layer_with_parameters_is_asked_whether_it_learns():
    learning = {name for name, entry in CATALOGUE.items() if set(entry.uses) & set(LEARNING)}
    convolutions = {"LiftingConv2d", "GroupConv2d", "GroupConvTranspose2d"}
    assert learning == convolutions | {"BatchNorm2d", "InstanceNorm2d", "VectorHead"}
    assert set(LEARNING) == {*CONVOLUTIONS, "BatchNorm2d", "InstanceNorm2d", "VectorHead"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_step_down_the_gradient_lowers_the_loss(name, device):
    use = USES[name]
    layer = use.make("C4").to(device)
    x = use.input("C4", (8, 11), dtype=torch.float32).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
