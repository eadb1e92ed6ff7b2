"""The one error of this room."""

from ._report import ConversionReport


class NotConvertible(TypeError):  # noqa: N818  the name says it; its users read "except NotConvertible"
    """A network that `convert` cannot turn into one equal to its group average; the message says where and why.

    Args:
        message: Where, why, and what to do.
        report: What was decided on each module, those refused among them; None if it did not come to that.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert
        >>> try:
        ...     convert(torch.nn.Conv2d(1, 1, 3, stride=(2, 1)), "C4", torch.randn(1, 1, 8, 8))
        ... except NotConvertible as error:
        ...     print(error.report)
        module   class   action  why
        -------  ------  ------  ...
        (model)  Conv2d  refuse  stride must be the same for rows and columns under C4, ...
        C4: 0 keep, 0 swap, 0 conjugate, 1 refuse; not verified
    """

    def __init__(self, message: str, report: ConversionReport | None = None) -> None:
        super().__init__(message)
        self.report = report
