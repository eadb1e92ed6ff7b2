"""Several processes as one: what they compute together is what one process computes of the whole batch."""

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


def processes() -> int:
    """How many train together; 1 if nobody else does."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks, of those that train together.

    Example:
        >>> from gconv_ga.train import is_main_process
        >>> is_main_process()
        True
    """
    node = os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", "0"))
    return getattr(rank_zero_only, "rank", 0) == 0 and node == "0"


def gather(x: Tensor) -> Tensor:
    """The tensors of all processes, in the order of their ranks along a new first axis; gradients find their way back.

    Shape:
        - x: any, the same in each process
        - output: ``[processes, *x.shape]``
    """
    if processes() == 1:
        return x[None]
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    """Each process has a loss of its own; a tensor's gradient is that of their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(processes())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[dist.get_rank()]


class OwnPart(Sampler[int]):
    """The items of a process: of each batch in turn, an equal part, in the order of ranks.

    Args:
        length: Items in all; what is no whole batch is left out.
        batch_size: Items in a batch, of all processes together.
        count: How many processes there will be.
    """

    def __init__(self, length: int, batch_size: int, count: int) -> None:
        self.batches = length // batch_size
        self.batch_size = batch_size
        self.count = count

    def __len__(self) -> int:
        return self.batches * self.batch_size // self.count

    def __iter__(self) -> Iterator[int]:
        # Asked for here: before the training begins nobody has a rank.
        rank = dist.get_rank() if processes() > 1 else 0
        part = self.batch_size // self.count
        for batch in range(self.batches):
            begin = batch * self.batch_size + rank * part
            yield from range(begin, begin + part)


class SharedStatistics(LayerSync):
    """Batch norms of torch, and of ours, that take mean and variance over the batches of all processes.

    For Lightning's ``plugins``. `torch.nn.SyncBatchNorm` does the same on GPUs alone; this runs on every device that
    `torch.distributed` runs on, so that the tests on the CPU test what is used. Modules stay what they are, and
    ``revert`` leaves no trace. The batches of the processes must be of one size.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Every batch norm looks at all processes."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                vars(module)["forward"] = functools.partial(batch_norm_of_all, module)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Every batch norm is as it was."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                vars(module).pop("forward", None)
        return model


def batch_norm_of_all(norm: _BatchNorm, input: Tensor) -> Tensor:
    """What ``norm`` gives of this process's part when it sees the batches of all processes as one.

    Mean and variance of the parts are joined by Chan's formula: ``var = mean(var_i) + mean((mean_i - mean)^2)``.

    References:
        Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.
    """
    if not norm.training or processes() == 1:
        return type(norm).forward(norm, input)
    norm._check_input_dim(input)  # noqa: SLF001  torch's own name for it
    axes = [axis for axis in range(input.ndim) if axis != 1]
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    variances, means = gather(torch.stack(torch.var_mean(x, dim=axes, correction=0))).unbind(1)
    mean = means.mean(dim=0)
    variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
    _follow(norm, mean.detach(), variance.detach(), processes() * input.numel() // input.shape[1])
    wide = (-1, *(1 for _ in axes[1:]))
    y = (x - mean.view(wide)) * (variance + norm.eps).rsqrt().view(wide)
    y = y if norm.weight is None else y * norm.weight.view(wide)
    y = y if norm.bias is None else y + norm.bias.view(wide)
    return y.to(input.dtype)


def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """The running statistics take a step, as in torch."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), rate)
    norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var), rate)
