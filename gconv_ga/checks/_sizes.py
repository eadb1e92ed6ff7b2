"""Which image sizes a strided layer of torch is exact at."""

from .._validate import as_int
from ..actions import good_sizes_near


def good_sizes(near: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> tuple[int, int]:
    """The sizes next to ``near`` at which a strided convolution or pool of torch is exact.

    Under quarter turns and mirrors those are the sizes with
    ``(size + 2 padding - dilation (kernel_size - 1) - 1) mod stride = 0``: nothing is left over at the far end, so a
    flip finds the same windows. The layers of `gconv_ga.nn` are exact at every size.

    Args:
        near: The size you have, in pixels along one axis.
        kernel_size: As for `torch.nn.Conv2d` or `torch.nn.MaxPool2d`, along this axis.
        stride: As there.
        padding: As there.
        dilation: As there.

    Returns:
        The nearest at or below ``near``, and the nearest at or above; twice ``near`` if it is exact itself, twice the
        one above if none below is large enough for the window.

    Raises:
        ValueError: An argument is no int, or too small.

    Example:
        >>> from gconv_ga.checks import good_sizes
        >>> good_sizes(32, kernel_size=3, stride=2, padding=1)
        (31, 33)
        >>> good_sizes(32, kernel_size=2, stride=2)
        (32, 32)
    """
    near = as_int("near", near, minimum=1)
    kernel_size, stride = as_int("kernel_size", kernel_size, minimum=1), as_int("stride", stride, minimum=1)
    padding, dilation = as_int("padding", padding, minimum=0), as_int("dilation", dilation, minimum=1)
    return good_sizes_near(near, kernel_size, stride, padding, dilation)
