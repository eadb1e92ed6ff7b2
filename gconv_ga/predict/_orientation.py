"""One orientation for all copies of an input: results that rotate with it to the last bit, in float32."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions import ScalarField, VectorField
from ..groups import Group, as_group


class OneOrientation(nn.Module):
    """Equivariant network that sees an input and its rotated copies as the same numbers.

    An equivariant network computes the logits of a rotated image in another order, with another rounding, which decides
    the class of a pixel where two are as good as equal. Here the network is given the one of the orientations of an
    input whose bytes come first in alphabetical order, and its output is rotated back: what it computes for a rotated
    copy is the same to the last bit. Of a symmetric input several orientations come first; of their outputs, rotated
    back, the middle between the smallest and the largest is taken at each pixel, which does not depend on their order.

    This is pre-processing by a frame of one element, of a network that is equivariant as it is. Other networks would
    become equivariant by it too, but their output would change as a whole where noise in one pixel changes the order.

    With one orientation the grid of a network that subsamples can be the same for all elements of its group, as in
    training on crops of a good size: before the network, rows at the bottom and columns at the right are repeated until
    the sides are multiples of its stride, and cut off afterwards.

    Args:
        model: Network that is equivariant under the group.
        group: Group; of its elements those count that map the pixel grid to itself.
        vectors: Number of channels at the end of the output that are components of vectors, x and y in turn, which
            rotate with the image. The others are scalars, such as logits.
        stride: Number of pixels of the input between those of the network's coarsest feature map.

    Shape:
        - input: ``[1, C, H, W]``
        - output: ``[1, K, H, W]``, float64: where four tiles are averaged, the rounding of float32 would depend on the
          order in which they are added

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, section 2.
    """

    def __init__(self, model: nn.Module, group: Group | str, *, vectors: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.model = model
        self.vectors, self.stride = vectors, stride
        self.group = as_group(group)
        self.elements = [g for g in range(self.group.order) if self.group.is_exact(g)]

    def forward(self, x: Tensor) -> Tensor:
        copies = [ScalarField()(x, self.group, g).contiguous() for g in self.elements]
        names = [(tuple(copy.shape), _bytes_of(copy)) for copy in copies]
        first = min(names)
        chosen = [place for place, name in enumerate(names) if name == first]
        output = self._padded(copies[chosen[0]])
        inverses = (self.group.inverse(self.elements[place]) for place in chosen)
        found = torch.stack([self._moved(output, g) for g in inverses])
        device = torch.device("cpu") if x.device.type == "mps" else x.device  # MPS has no float64
        return ((found.amin(dim=0) + found.amax(dim=0)) / 2).to(device).to(torch.float64)

    def _padded(self, x: Tensor) -> Tensor:
        """Run the network on sides that are multiples of its stride."""
        rows, columns = (-side % self.stride for side in x.shape[-2:])
        output: Tensor = self.model(F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x)
        return output[..., : output.shape[-2] - rows, : output.shape[-1] - columns]

    def _moved(self, output: Tensor, g: int) -> Tensor:
        """Rotate an output."""
        scalars, vectors = output.split((output.shape[1] - self.vectors, self.vectors), dim=1)
        moved = ScalarField()(scalars, self.group, g)
        return torch.cat((moved, VectorField()(vectors, self.group, g)), dim=1) if self.vectors else moved


def _bytes_of(x: Tensor) -> bytes:
    """Return the values of a tensor as bytes, whatever its strides."""
    # Not by contiguous(): the strides of axes of length 1, which may be anything, would still be in the way.
    dense = x.detach().cpu().clone(memory_format=torch.contiguous_format)
    return bytes(dense.view(torch.uint8).numpy().tobytes())


def in_one_orientation(
    model: nn.Module,
    group: Group | str | None = None,
    *,
    outputs: Callable[[nn.Module], nn.Module] | None = None,
    vectors: int = 0,
) -> OneOrientation | None:
    """Return the network in one orientation; None if no group is known.

    Args:
        model: Network, whose attribute ``stride``, if it has one, is that of `OneOrientation`.
        group: Group under which the network is equivariant. If None, its attribute ``group``.
        outputs: Function that returns the module to run. If None, the network.
        vectors: As for `OneOrientation`.
    """
    own = getattr(model, "group", None)
    known = own if group is None and isinstance(own, Group) else group
    if known is None:
        return None
    stride = getattr(model, "stride", 1)
    network = model if outputs is None else outputs(model)
    return OneOrientation(network, known, vectors=vectors, stride=stride if isinstance(stride, int) else 1)
