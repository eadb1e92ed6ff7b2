"""What becomes of each module of a plain network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .._validate import invalid, one_of
from ..groups import Group
from ._convolutions import OrbitConv2d, OrbitConvTranspose2d

Action = Literal["keep", "swap", "conjugate"]
Rule = str | Callable[[nn.Module, Group], nn.Module]

# They act on each channel or each sample alone, or pool to a square whatever the size.
_COMMUTING: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm,
    nn.LocalResponseNorm, nn.Linear, nn.Bilinear, nn.Identity, nn.Flatten, nn.Unflatten, nn.Embedding,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.ChannelShuffle,
    nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.MultiheadAttention, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    # Their functions are caught where they do not commute.
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ZeroPad2d,
    nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d,
)  # fmt: skip
_BY_NAME = {"Permute": "keep", "StochasticDepth": "keep", "DropPath": "keep"}

_registered: dict[type[nn.Module], Rule] = {}


def register(module_class: type[nn.Module], rule: Rule) -> None:
    """Teach `convert` what to do with a class of modules.

    Args:
        module_class: The class; subclasses have their own rules, or none.
        rule: "keep" if the module commutes with the group when images lie in the batch; "conjugate" to run it in each
            orientation's frame, which is right for any module from one image to one image; or a function of the module
            and the group that returns a module for orbits ``[B |G|, C, H, W]``.

    Raises:
        ValueError: ``module_class`` is no class of modules, or ``rule`` is none of those.

    Example:
        >>> import torch
        >>> class Roll(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.roll(1, -1)
        >>> register(Roll, "conjugate")
    """
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise invalid("module_class", "a class of torch.nn.Module", module_class)
    if not callable(rule):
        one_of("rule", rule, ("keep", "conjugate"))
    _registered[module_class] = rule


@dataclass(frozen=True)
class Decision:
    """What becomes of a module, and why."""

    action: Action
    why: str
    make: Callable[[Any, Group], nn.Module] | None = None


def decide(module: nn.Module) -> Decision | None:
    """The rule for a module; None for a container whose children are decided one by one."""
    kind = type(module)
    if kind in _registered:
        rule = _registered[kind]
        if callable(rule):
            return Decision("swap", "registered", rule)
        return Decision("keep" if rule == "keep" else "conjugate", "registered")
    # An old-style weight norm recomputes the weight before each call: the weight is no parameter then.
    plain = not module._forward_pre_hooks  # noqa: SLF001  torch has no public name for them
    if kind is nn.Conv2d and plain:
        return Decision("swap", "kernels turn", OrbitConv2d.of)
    if kind is nn.ConvTranspose2d and plain:
        return Decision("swap", "kernels turn", OrbitConvTranspose2d.of)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return Decision("conjugate", "a convolution whose weight or padding is its own")
    if isinstance(module, nn.LayerNorm):
        one_axis = len(module.normalized_shape) == 1
        return Decision("keep", "channels only") if one_axis else Decision("conjugate", "weights have positions")
    if isinstance(module, _COMMUTING) or kind.__module__ == "torch.nn.modules.activation":
        return Decision("keep", "commutes")
    if kind.__name__ in _BY_NAME:
        return Decision("keep", "commutes")
    if any(True for _ in module.children()) or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return None
    return Decision("conjugate", "unknown")
