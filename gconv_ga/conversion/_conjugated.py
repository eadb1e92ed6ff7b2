"""Running a module of the plain network in the frame of each orientation."""

from collections.abc import Mapping
from typing import Any

from torch import SymInt, Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..actions import nest_leaves
from ..groups import Group
from ._orbit import conjugate


class ConjugatedForward:
    """A module's ``forward``, replaced: ``L_g module(L_g^-1 x_g)`` for all images that it is given.

    Exact for every module from images to images or to numbers. A call without images, or one that tells a size, which
    is that of images which are not upright, it leaves to the module and to `OrbitMode`. It takes the place of the
    instance's ``forward``, so that class, parameters, names and hooks stay.
    """

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        images = [x for _, x in nest_leaves((args, kwargs), "input") if isinstance(x, Tensor) and x.ndim == 4]
        if not images or _tells_size((args, kwargs)):
            return type(self.module).forward(self.module, *args, **kwargs)
        return run_conjugated(images[0], self.module, self.group, args, kwargs)


def run_conjugated(image: Tensor, module: nn.Module, group: Group, args: Any, kwargs: Any) -> Any:
    """The module on upright images. Under `OrbitMode` it runs outside of it: here images are upright already."""
    if has_torch_function((image,)):
        return handle_torch_function(run_conjugated, (image,), image, module, group, args, kwargs)
    return conjugate(lambda nest: type(module).forward(module, *nest[0], **nest[1]), (args, kwargs), group)


def _tells_size(nest: Any) -> bool:
    """Whether there is a sequence of ints in it."""
    if isinstance(nest, Mapping):
        return any(_tells_size(part) for part in nest.values())
    if isinstance(nest, tuple | list):
        sized = len(nest) > 1 and all(isinstance(part, int | SymInt) for part in nest)
        return sized or any(_tells_size(part) for part in nest)
    return False


class TiedForward:
    """A random drop's ``forward``, replaced: one draw for each sample, the same for all its orientations."""

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, x: Tensor) -> Any:
        def drop(ones: Tensor) -> Any:
            return type(self.module).forward(self.module, ones)

        return tie(drop, x, self.group) if self.module.training else drop(x)


def tie(drop: Any, x: Tensor, group: Group) -> Tensor:
    """``x`` times one draw for each sample.

    Args:
        drop: What multiplies a tensor by a random mask.
        x: ``[B |G|, ...]``.
        group: The group.
    """
    one = x.unflatten(0, (-1, group.order))[:, 0]
    drawn: Tensor = drop(one.new_ones(one.shape))
    return x * drawn.repeat_interleave(group.order, 0)
