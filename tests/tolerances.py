"""The largest relative error that a test accepts, by dtype: one table for the whole suite.

float64 is tight on purpose: at 1e-5 a hidden cast to float32 is invisible. If a test fails, change the data or the
code before the tolerance.
"""

import torch

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
}
