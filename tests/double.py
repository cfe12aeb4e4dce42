"""tests.ranked in double precision: python -m tests.double HOME

The program computes in single precision, and says so by torch's name for it. Here that name stands for double
precision, in the program and in transformers, so that what is left of a difference is no rounding.
"""

import sys
from pathlib import Path

import safetensors.torch  # noqa: F401  (before the names change: it makes its table of dtypes)
import torch

if __name__ == "__main__":
    torch.float32 = torch.float = torch.float64  # type: ignore[misc]
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.set_default_dtype(torch.float64)
    from hackward.method import shared_prompts
    from tests.ranked import main

    shared_prompts.ROUNDING[8] = 1e-9

    main(Path(sys.argv[1]))
