"""Copies of networks, whatever they are wrapped in: compiled, traced, with weights that hooks compute."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from typing import Any

from torch import Tensor, nn

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def copy_network(model: nn.Module) -> nn.Module:
    """Return a copy with the modes and hooks of the original, without the wrappers of `torch.compile`.

    Raises:
        NotImplementedError: The network is a program that has lost its modules: scripted, exported or quantized.
    """
    reason = why_not_open(model)
    if reason:
        raise NotImplementedError(reason)
    with _computed_weights_detached(model):
        network = deepcopy(model)
    # torch.fx makes its copies anew: in training mode and without hooks.
    for original, twin in zip(model.modules(), network.modules(), strict=True):
        twin.training = original.training
        for name in _HOOKS:
            hooks = original.__dict__.get(name)
            if hooks and not twin.__dict__.get(name):
                twin.__dict__[name] = copy(hooks)
    return _without_compilers(network)


def why_not_open(model: nn.Module) -> str | None:
    """Return why the modules of a network cannot be seen or replaced; None if they can."""
    for path, module in model.named_modules():
        kind, where = type(module), f"at {path}" if path else "as a whole"
        bases = {base.__name__ for base in kind.__mro__}
        if "ScriptModule" in bases:
            return (
                f"it is a TorchScript program ({where}), which has no modules to replace; convert what it was made from"
            )
        if "quantized" in kind.__module__ or "PackedParams" in kind.__name__:
            return f"it is quantized ({where}, {kind.__name__}); convert it before it is quantized"
        if "torch.ao." in kind.__module__ and ("qat" in kind.__module__ or "FakeQuantize" in bases):
            return f"it is prepared for quantization ({where}, {kind.__name__}); convert it before"
        if hasattr(module, "_guards_fn") or type(getattr(module, "graph_signature", None)).__name__ == "GraphSignature":
            return f"it is a program of torch.export ({where}), with its sizes built in; convert what was exported"
    return None


@contextmanager
def _computed_weights_detached(model: nn.Module) -> Iterator[None]:
    """Replace tensors that hooks have computed by constants: after a training step, torch cannot copy them."""
    found: list[tuple[nn.Module, str, Tensor]] = []
    for module in model.modules():
        for name, value in list(module.__dict__.items()):
            if isinstance(value, Tensor) and not value.is_leaf:
                found.append((module, name, value))
                module.__dict__[name] = value.detach()
    try:
        yield
    finally:
        for module, name, value in found:
            module.__dict__[name] = value


def _without_compilers(model: nn.Module) -> nn.Module:
    while type(model).__name__ == "OptimizedModule":
        model = model._orig_mod  # type: ignore[assignment]  # noqa: SLF001  torch has no public name
    for module in list(model.modules()):
        module._compiled_call_impl = None  # noqa: SLF001  what `module.compile()` sets
        for name, child in list(module._modules.items()):  # noqa: SLF001  named_children() leaves out second names
            if child is not None and type(child).__name__ == "OptimizedModule":
                setattr(module, name, _without_compilers(child))
    return model


def unreadable_class(nest: Any) -> str | None:
    """Return the class of an output whose tensors cannot be reached: neither a tensor nor in a dict or a sequence."""
    if isinstance(nest, Mapping):
        return next((kind for part in nest.values() if (kind := unreadable_class(part))), None)
    if isinstance(nest, tuple | list):
        return next((kind for part in nest if (kind := unreadable_class(part))), None)
    if isinstance(nest, Tensor | int | float | str | None):
        return None
    return (
        type(nest).__name__
        if any(isinstance(part, Tensor) for part in getattr(nest, "__dict__", {}).values())
        else None
    )
