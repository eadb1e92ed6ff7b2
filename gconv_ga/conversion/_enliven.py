"""Weights that hide nothing: a structure is compared on them in place of a model's own."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def enliven(model: nn.Module, example: Any) -> None:
    """Give every branch of a model in eval mode a say in its output, in place.

    Trainable parameters that are constant become random: a branch that is multiplied by zero, or a table of positions
    that starts at zero, would pass every comparison. Batch norms get the statistics of the example, so that signals
    neither die out nor grow from layer to layer.

    Args:
        model: A copy that nobody else needs.
        example: Its arguments.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad and _is_blank(parameter):
            parameter.copy_(_numbers_like(parameter, generator))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_calibrate) for norm in norms]
    model(*example)
    for hook in hooks:
        hook.remove()


def _is_blank(parameter: Tensor) -> bool:
    """Whether a parameter says nothing of its own: a constant; a single number only if it is zero."""
    if parameter.numel() < 2:
        return bool((parameter == 0).all())
    return bool((parameter == parameter.flatten()[0]).all())


def _numbers_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
    if parameter.ndim < 2:
        # Scales, mostly: near one.
        return 0.5 + numbers
    return (2 * numbers - 1) * (parameter.numel() // parameter.shape[0]) ** -0.5


def _calibrate(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs[0], axes, correction=0)
    # A channel that does not vary on the example has nothing to be scaled to.
    varied = variance > 1e-12
    norm.running_mean.copy_(torch.where(varied, mean, norm.running_mean))
    norm.running_var.copy_(torch.where(varied, variance, norm.running_var))
