"""Which sizes a strided window covers without a rest: pure arithmetic, for layers, checks and their messages.

Along one axis a window of ``k`` taps (``d`` apart) with padding ``lo`` and ``hi`` and stride ``s`` leaves
``r = (n + lo + hi - d (k - 1) - 1) mod s`` of ``n`` pixels over at the end. A flip of the axis wants them left over at
the start. So one grid for all elements is exact where ``r = 0`` (and ``lo = hi``), and elsewhere only by accident, as
where one window holds the whole image.
"""


def leftover(size: int, kernel: int, stride: int, padding: int | tuple[int, int], dilation: int) -> int:
    """How many pixels at the end of an axis no window reaches.

    Args:
        size: Pixels of the axis.
        kernel: Taps of the window.
        stride: Pixels from window to window.
        padding: Pixels added at both ends, or a pair for the start and the end; negative to crop.
        dilation: Pixels from tap to tap.

    Example:
        >>> leftover(32, kernel=3, stride=2, padding=1, dilation=1), leftover(33, 3, 2, 1, 1)
        (1, 0)
    """
    return _last_start(size, kernel, padding, dilation) % stride


def good_sizes_near(
    size: int, kernel: int, stride: int, padding: int | tuple[int, int], dilation: int
) -> tuple[int, int]:
    """The nearest sizes at and below ``size``, and at and above it, that leave nothing over.

    Both are ``size`` if it is good itself. Where nothing below is good (a window must fit), both are the one above.

    Args:
        size: Pixels of the axis.
        kernel: Taps of the window.
        stride: Pixels from window to window.
        padding: Pixels added at both ends, or a pair for the start and the end.
        dilation: Pixels from tap to tap.

    Example:
        >>> good_sizes_near(32, kernel=3, stride=2, padding=1, dilation=1)
        (31, 33)
    """
    smallest = max(1, size - _last_start(size, kernel, padding, dilation))
    rest = leftover(size, kernel, stride, padding, dilation)
    below, above = size - rest, size + (stride - rest) % stride
    if above < smallest:
        above += -(-(smallest - above) // stride) * stride
    return (below if below >= smallest else above), above


def _last_start(size: int, kernel: int, padding: int | tuple[int, int], dilation: int) -> int:
    """Where the last window of stride 1 starts on the padded axis; negative if none fits."""
    low, high = (padding, padding) if isinstance(padding, int) else padding
    return size + low + high - dilation * (kernel - 1) - 1
