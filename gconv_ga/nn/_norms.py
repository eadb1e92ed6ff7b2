"""Normalization and dropout of feature maps on the group: torch's layers for five axes, with checks of the input."""

from torch import Tensor, nn

from .._validate import wrong_shape


class BatchNorm2d(nn.BatchNorm3d):
    """Batch normalization of feature maps on the group; statistics and affine parameters are shared by all elements.

    Equivariance asks for the statistics of `torch.nn.BatchNorm3d`, which are taken over the last three axes of
    ``[B, C, |G|, H, W]``: separate statistics would tell the orientations apart. To synchronize them between devices,
    use `torch.nn.SyncBatchNorm.convert_sync_batchnorm`.

    Args:
        num_features: C, not counting group elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import BatchNorm2d
        >>> BatchNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        _check_axes(input, self.num_features)


class InstanceNorm2d(nn.InstanceNorm3d):
    """Instance normalization of feature maps on the group, with statistics over group elements and pixels.

    Args:
        num_features: C, not counting group elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import InstanceNorm2d
        >>> InstanceNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        # torch looks at the first sample without checking that there is one.
        return super().forward(input) if input.shape[0] else input.clone()

    def _check_input_dim(self, input: Tensor) -> None:
        _check_axes(input, self.num_features)


class Dropout2d(nn.Dropout3d):
    """Dropout of whole fields: all orientations of a field are dropped together, so that training is equivariant too.

    Args:
        p: Probability that a field is set to zero.
        inplace: As in torch.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import Dropout2d
        >>> Dropout2d(0.5)(torch.ones(1, 8, 4, 16, 16)).shape
        torch.Size([1, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        _check_axes(input, None)
        return super().forward(input)


def _check_axes(input: Tensor, fields: int | None) -> None:
    if input.ndim != 5 or (fields is not None and input.shape[1] != fields):
        raise wrong_shape("input", f"[B, C{'' if fields is None else f'={fields}'}, |G|, H, W]", input)
