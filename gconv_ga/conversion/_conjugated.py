"""Running a module of the plain network in the frame of each orientation."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..groups import Group
from ._orbit import conjugate


class ConjugatedForward:
    """A module's ``forward``, replaced: ``L_g module(L_g^-1 x_g)``.

    Exact for every module that maps one image to one image; anything else it leaves to the module. It takes the place
    of the instance's ``forward``, so that class, parameters, names and hooks stay.
    """

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or not isinstance(args[0], Tensor) or args[0].ndim != 4:
            return type(self.module).forward(self.module, *args, **kwargs)
        return run_conjugated(args[0], self.module, self.group, kwargs)


def run_conjugated(x: Tensor, module: nn.Module, group: Group, kwargs: dict[str, Any]) -> Any:
    """The module on upright images. Under `OrbitMode` it runs outside of it: here images are upright already."""
    if has_torch_function((x,)):
        return handle_torch_function(run_conjugated, (x,), x, module, group, kwargs)
    return conjugate(lambda upright, _: type(module).forward(module, upright, **kwargs), x, group)


def outside_modes(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """``function(x, *args)`` outside of `OrbitMode`: what our own layers pad and slice are no images of the network."""
    if has_torch_function((x,)):
        return handle_torch_function(outside_modes, (x,), function, x, *args)
    return function(x, *args)


class TiedForward:
    """A dropout's ``forward``, replaced: one draw for each sample, the same for all its orientations."""

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, x: Tensor) -> Any:
        if not self.module.training:
            return type(self.module).forward(self.module, x)
        one = x.unflatten(0, (-1, self.group.order))[:, 0]
        drawn = type(self.module).forward(self.module, one.new_ones(one.shape))
        return x * drawn.repeat_interleave(self.group.order, 0)
