"""Plane waves, which rotate exactly: the error of a rotated kernel without a correlation function."""

import math

import torch


def positions(kernel_size):
    """Return the positions of the taps, x right and y up, in the order of a flat kernel."""
    middle = (kernel_size - 1) / 2
    taps = [(column - middle, middle - row) for row in range(kernel_size) for column in range(kernel_size)]
    return torch.tensor(taps, dtype=torch.float64)


def turned(waves, angle):
    c, s = math.cos(angle), math.sin(angle)
    return waves @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


def outputs(kernels, waves):
    """Return the outputs of ``kernels[F, k * k]`` on each wave ``exp(i w.x)``, ``[F, waves]``."""
    phases = positions(math.isqrt(kernels.shape[1])) @ waves.T
    return kernels.to(torch.complex128) @ torch.exp(1j * phases)


def errors(kernels, blur=0.0):
    """Return relative errors of functions ``[F, n, k, k]`` on the waves of a photograph, and of their random sum.

    A photograph consists of waves of all directions and of frequencies p up to pi, with power ``1 / (p^2 + 0.01)``.
    """
    n, kernels = kernels.shape[1], kernels.flatten(2)
    s = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    p = math.pi * s.square()  # dp = 2 pi s ds: denser where the spectrum is steep
    power = s * p / (p.square() + 0.01) * torch.exp(-(blur * p).square())
    directions = torch.arange(40, dtype=torch.float64) / 40 * 2 * math.pi
    waves = torch.stack((torch.outer(p, directions.cos()), torch.outer(p, directions.sin())), dim=-1).flatten(0, 1)
    power = power.repeat_interleave(40)
    energy = sum(outputs(kernels[:, g], waves).abs().square() @ power for g in range(n)) / n
    inexact = [g for g in range(n) if 4 * g % n]
    before = outputs(kernels[:, 0], waves)
    after = {g: outputs(kernels[:, g], turned(waves, 2 * math.pi * g / n)) for g in inexact}
    missed = sum((after[g] - before).abs().square() @ power for g in inexact) / len(inexact)
    return (missed / energy).sqrt(), float((missed.sum() / energy.sum()).sqrt())
