"""A plain network on the orbit of its input, reduced over the group."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import Action, Leaf, ScalarField, VectorField, nest_leaves, pair_leaves, rebuild_nest
from ..groups import Group
from ._convolutions import OrbitConvolution
from ._mode import OrbitMode
from ._orbit import to_orbit
from ._report import ConversionReport


class ConvertedNetwork(nn.Module):
    """What `convert` returns: the plain network, run on all orientations at once and averaged.

    Parameters and ``state_dict`` keys are the plain network's, so weights load before or after converting.

    Attributes:
        model: The network with its modules swapped.
        group: The group.
        report: What was done to each module.
        reduce: "mean" for the average, "none" for the maps on the group: images as ``[B, C, |G|, H, W]``, vectors as
            ``[B, K, |G|]``. It may be changed at any time.
    """

    def __init__(self, model: nn.Module, group: Group, out_action: Any, reduce: str, report: ConversionReport) -> None:
        super().__init__()
        self.model = model
        self.group = group
        self.out_action = out_action
        self.reduce = one_of("reduce", reduce, ("mean", "none"))
        self.report = report
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, *inputs: Any) -> Any:
        found = nest_leaves(inputs, "input")
        batches = {x.shape[0] for _, x in found if isinstance(x, Tensor) and x.ndim}
        if len(batches) != 1:
            raise invalid("inputs", "tensors of one batch", [tuple(x.shape) for _, x in found if isinstance(x, Tensor)])
        orbit = (to_orbit(x, self.group) if isinstance(x, Tensor) and x.ndim else x for _, x in found)
        with OrbitMode(self.group, batches.pop() * self.group.order):
            output = self.model(*rebuild_nest(inputs, orbit))
        parts = pair_leaves(output, self.out_action, "output", "out_action")
        return rebuild_nest(output, self._reduced(parts))

    def _reduced(self, parts: list[Leaf]) -> Iterator[Any]:
        for _, part, action in parts:
            if not isinstance(part, Tensor):
                yield part
                continue
            maps = self._oriented(part.unflatten(0, (-1, self.group.order)), action)
            yield maps.mean(1) if self.reduce == "mean" else (maps.movedim(1, 2) if maps.ndim > 2 else maps)

    def _oriented(self, maps: Tensor, action: Action) -> Tensor:
        """``[B, |G|, ...]``: what each orientation says, in the image's frame."""
        # Pixels are in place already.
        if isinstance(action, ScalarField) and not isinstance(action, VectorField):
            return maps
        turned = []
        for g, y in enumerate(maps.unbind(1)):
            if isinstance(action, VectorField):
                # A pixel alone has only components to turn.
                pixels = action(y.flatten(2).movedim(2, 1)[..., None, None], self.group, g)
                turned.append(pixels[..., 0, 0].movedim(1, 2).unflatten(2, y.shape[2:]))
            else:
                turned.append(action.after(self.group, self.group.inverse(g))(y, self.group, g))
        return torch.stack(turned, dim=1)

    def convolutions(self) -> dict[str, OrbitConvolution]:
        """The convolutions that can be opened, by path; the first layer is not among them."""
        return {
            path: module
            for path, module in self.model.named_modules()
            if isinstance(module, OrbitConvolution) and not getattr(module, "lifts", False)
        }

    def open_taps(
        self,
        layers: Iterable[str] | Callable[[str, nn.Module], bool] | None = None,
        group_kernel_size: int | None = None,
    ) -> None:
        """Let convolutions mix orientations: add kernels for more elements, which start at zero.

        The output stays what it was, and equivariant whatever the new kernels become in training. The first layer is
        left alone: all orientations show it the same image, so that further kernels there would say nothing new.

        Args:
            layers: Paths of convolutions, or a function of path and module; None for all but the first.
            group_kernel_size: How many elements, nearest the identity first, as in `GroupConv2d`; None for all.

        Raises:
            ValueError: A path is none of those that can be opened, or the number is out of range.

        Example:
            >>> import torch
            >>> from gconv_ga.conversion import convert
            >>> plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
            >>> net = convert(plain, "C4", torch.randn(1, 1, 16, 12))
            >>> net.open_taps(group_kernel_size=3)
            >>> sorted(net.state_dict())
            ['0.bias', '0.weight', '2.bias', '2.taps', '2.weight']
        """
        able = self.convolutions()
        if layers is None:
            chosen = list(able)
        elif callable(layers):
            chosen = [path for path, module in able.items() if layers(path, module)]
        else:
            chosen = list(layers)
            for path in chosen:
                if path not in able:
                    raise invalid(
                        "layers", "paths of convolutions after the first, such as those of .convolutions()", path
                    )
        for path in chosen:
            able[path].open(self.group.order if group_kernel_size is None else group_kernel_size)

    def param_groups(self, lr: float, tap_scale: float | None = None) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser: taps learn slower, since they all move together.

        Args:
            lr: The learning rate of the plain network's parameters.
            tap_scale: The taps' learning rate over ``lr``; None for ``1 / |G|``.

        Returns:
            One group, or two if there are taps.

        Raises:
            ValueError: A number is not positive.
        """
        scale = 1 / self.group.order if tap_scale is None else tap_scale
        for name, number in (("lr", lr), ("tap_scale", scale)):
            if not number > 0:
                raise invalid(name, "a positive number", number)
        named = list(self.named_parameters())
        taps = [p for name, p in named if name.rpartition(".")[2] == "taps"]
        rest = [p for name, p in named if name.rpartition(".")[2] != "taps"]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
        return [*groups, {"params": taps, "lr": lr * scale}] if taps else groups

    def extra_repr(self) -> str:
        return f"group={self.group.name!r}, reduce={self.reduce!r}"


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, prefix + "model.", prefix)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    _rename(state, prefix, prefix + "model.")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key[len(old) :]] = state.pop(key)
