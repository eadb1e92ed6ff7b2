"""The device to compute on."""

import torch

from .._validate import invalid


def as_device(device: str | torch.device) -> torch.device:
    """The device that ``device`` means.

    Args:
        device: "auto" (the accelerator if there is one, else the CPU), or a torch device such as "cpu" or "cuda:1".

    Raises:
        ValueError: It is no device, or not one of this machine.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    present = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    if device == "auto":
        return torch.device(present[-1])
    takes = "'auto' or a device of this machine: " + ", ".join(present)
    try:
        found = torch.device(device)
    except RuntimeError:
        raise invalid("device", takes, device) from None
    count = 1 if found.type == "cpu" else torch.accelerator.device_count()
    if found.type not in present or (found.index or 0) >= count:
        raise invalid("device", takes, str(device))
    return found
