"""Norms and dropout of maps on the group: torch's own, for five axes, with messages that say which."""

from torch import Tensor, nn

from .._validate import wrong_shape


class BatchNorm2d(nn.BatchNorm3d):
    """Batch norm of maps on the group; mean, variance and affine numbers are shared over the element axis.

    `torch.nn.BatchNorm3d`, whose statistics over the last three axes of ``[B, C, |G|, H, W]`` are what equivariance
    asks for: an orientation's own statistics would tell the orientations apart.
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm` converts it.

    Args:
        num_features: C, not counting elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Where the parameters are made.
        dtype: Of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import BatchNorm2d
        >>> BatchNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        _check_map(input, self.num_features)


class InstanceNorm2d(nn.InstanceNorm3d):
    """Instance norm of maps on the group; mean and variance are taken over elements and pixels together.

    Args:
        num_features: C, not counting elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Where the parameters are made.
        dtype: Of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import InstanceNorm2d
        >>> InstanceNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        # torch looks at the first sample before it looks whether there is one.
        return super().forward(input) if input.shape[0] else input.clone()

    def _check_input_dim(self, input: Tensor) -> None:
        _check_map(input, self.num_features)


class Dropout2d(nn.Dropout3d):
    """Dropout of whole fields: all orientations of a field go together, so that training too is equivariant.

    Args:
        p: The probability that a field is set to zero.
        inplace: As in torch.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import Dropout2d
        >>> Dropout2d(0.5)(torch.ones(1, 8, 4, 16, 16)).shape
        torch.Size([1, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        _check_map(input, None)
        return super().forward(input)


def _check_map(input: Tensor, fields: int | None) -> None:
    if input.ndim != 5 or (fields is not None and input.shape[1] != fields):
        raise wrong_shape("input", f"[B, C{'' if fields is None else f'={fields}'}, |G|, H, W]", input)
