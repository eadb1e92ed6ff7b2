"""One orientation for all copies of an input: results that rotate with it to the last bit, in float32."""

import torch
from torch import Tensor, nn

from ..actions import ScalarField
from ..groups import Group, as_group


class OneOrientation(nn.Module):
    """Equivariant network that sees an input and its rotated copies as the same numbers.

    An equivariant network computes the logits of a rotated image in another order, with another rounding, which decides
    the class of a pixel where two are as good as equal. Here the network is given the one of the orientations of an
    input whose bytes come first in alphabetical order, and its output is rotated back: what it computes for a rotated
    copy is the same to the last bit. Of a symmetric input several orientations come first; the output is then the
    largest of those that are rotated back, at each pixel, which does not depend on their order.

    This is pre-processing by a frame of one element, of a network that is equivariant as it is.

    Args:
        model: Network that returns logits, equivariant under the group.
        group: Group; of its elements those count that map the pixel grid to itself.

    Shape:
        - input: ``[1, C, H, W]``
        - output: ``[1, classes, H, W]``

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, section 2.
    """

    def __init__(self, model: nn.Module, group: Group | str) -> None:
        super().__init__()
        self.model = model
        self.group = as_group(group)
        self.elements = [g for g in range(self.group.order) if self.group.is_exact(g)]

    def forward(self, x: Tensor) -> Tensor:
        rotate = ScalarField()
        copies = [rotate(x, self.group, g).contiguous() for g in self.elements]
        names = [(tuple(copy.shape), copy.cpu().numpy().tobytes()) for copy in copies]
        first = min(names)
        chosen = [place for place, name in enumerate(names) if name == first]
        logits: Tensor = self.model(copies[chosen[0]])
        inverses = (self.group.inverse(self.elements[place]) for place in chosen)
        return torch.stack([rotate(logits, self.group, g) for g in inverses]).amax(dim=0)
