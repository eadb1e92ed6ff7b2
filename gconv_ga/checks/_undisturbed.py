"""Run somebody's module without leaving a trace."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(module: Callable[..., Any], tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Inside: eval mode, no gradients. Afterwards: training flags, saved buffers and random numbers as before.

    Every submodule gets its own flag back. Buffers that the ``state_dict`` does not hold are caches; they are left as
    the module made them.

    Args:
        module: A module, or a callable, which has no modes and no buffers.
        tensors: The inputs: random numbers of their devices are put back too.
    """
    if not isinstance(module, nn.Module):
        module = nn.Module()
    modes = [(part, part.training) for part in module.modules()]
    buffers = _saved_buffers(module)
    devices = {tensor.device for tensor in (*tensors, *module.parameters(), *module.buffers())}
    cuda = [device for device in devices if device.type == "cuda"]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=cuda, device_type="cuda"))
        stack.enter_context(torch.no_grad())
        try:
            module.eval()
            yield
        finally:
            _restore_modes(modes)
            _restore_buffers(module, buffers)


def _saved_buffers(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The buffers of the ``state_dict`` by name, each with a copy."""
    names = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    state = module.state_dict(keep_vars=True)
    kept = {name: value for name, value in state.items() if name in names and not nn.parameter.is_lazy(value)}
    return {name: (value, value.detach().clone()) for name, value in kept.items()}


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    # First by train(), for modules that do more there than to set the flag; parents come before their children.
    for part, mode in modes:
        if part.training != mode:
            part.train(mode)
    # Then the flags themselves: train() may be overridden to leave some as they are.
    for part, mode in modes:
        part.training = mode


def _restore_buffers(module: nn.Module, buffers: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (buffer, copy) in buffers.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if getattr(owner, last) is not buffer:
            setattr(owner, last, buffer)
        if not torch.equal(buffer, copy):
            buffer.copy_(copy)
