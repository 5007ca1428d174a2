"""Where these tests run: on CUDA where it is, else torch's CPU, where Triton's interpreter runs the kernels."""

from __future__ import annotations

import os
import warnings

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
    warnings.warn("NO CUDA HERE: THE KERNELS' LOGIC IS TESTED BY TRITON'S INTERPRETER, ON TINY SIZES", stacklevel=1)
