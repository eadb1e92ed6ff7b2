"""Training in several processes: together they compute what one process computes of the whole batch."""

import functools
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins import LayerSync
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Sampler


def is_main_process() -> bool:
    """Return True in the one process that writes files and prints, of those that train together.

    Example:
        >>> from gconv_ga.train import is_main_process
        >>> is_main_process()
        True
    """
    node = os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", "0"))
    return getattr(rank_zero_only, "rank", 0) == 0 and node == "0"


def process_count() -> int:
    """Return the number of processes that train together; 1 outside of a distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Return the rank of this process among those that train together; 0 outside of a distributed training."""
    return dist.get_rank() if process_count() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """Stack the tensors of all processes along a new first axis, in the order of their ranks; differentiable.

    Shape:
        - x: any, the same in each process
        - output: ``[processes, *x.shape]``
    """
    if process_count() == 1:
        return x[None]
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    """Gather whose gradient is that of the sum of the losses of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(process_count())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[dist.get_rank()]


class BatchShareSampler(Sampler[int]):
    """Sampler of the items of one process: an equal part of each batch in turn, in the order of ranks.

    Args:
        length: Number of items in all; those beyond the last whole batch are left out.
        batch_size: Number of items in a batch, of all processes together.
        count: Number of processes there will be.
    """

    def __init__(self, length: int, batch_size: int, count: int) -> None:
        self.batches = length // batch_size
        self.batch_size = batch_size
        self.count = count

    def __len__(self) -> int:
        return self.batches * self.batch_size // self.count

    def __iter__(self) -> Iterator[int]:
        rank = process_rank()  # asked for here: before the training begins no process has a rank
        part = self.batch_size // self.count
        for batch in range(self.batches):
            begin = batch * self.batch_size + rank * part
            yield from range(begin, begin + part)


class SharedBatchNorm(LayerSync):
    """Lightning plugin: batch norms of torch and of `gconv_ga.nn` use the statistics over all processes.

    `torch.nn.SyncBatchNorm` does the same on GPUs only; this runs on every device that `torch.distributed` supports, so
    tests on the CPU test the code that is used. The types of the modules do not change, and ``revert`` leaves no trace.
    The batches of all processes must have the same size.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Make every batch norm use the statistics of all processes."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                vars(module)["forward"] = functools.partial(shared_batch_norm, module)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Restore every batch norm."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                vars(module).pop("forward", None)
        return model


def shared_batch_norm(norm: _BatchNorm, input: Tensor) -> Tensor:
    """Normalize the part of this process with mean and variance over the batches of all processes.

    The statistics of the parts are combined by Chan's formula: ``var = mean(var_i) + mean((mean_i - mean)^2)``.

    References:
        Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.
    """
    if not norm.training or process_count() == 1:
        return type(norm).forward(norm, input)
    norm._check_input_dim(input)  # noqa: SLF001  torch's own name for it
    axes = [axis for axis in range(input.ndim) if axis != 1]
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    variances, means = gather(torch.stack(torch.var_mean(x, dim=axes, correction=0))).unbind(1)
    mean = means.mean(dim=0)
    variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
    _update_running_statistics(
        norm, mean.detach(), variance.detach(), process_count() * input.numel() // input.shape[1]
    )
    wide = (-1, *(1 for _ in axes[1:]))
    y = (x - mean.view(wide)) * (variance + norm.eps).rsqrt().view(wide)
    y = y if norm.weight is None else y * norm.weight.view(wide)
    y = y if norm.bias is None else y + norm.bias.view(wide)
    return y.to(input.dtype)


def _update_running_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics as torch does, with the unbiased variance of ``count`` values."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), rate)
    norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var), rate)
