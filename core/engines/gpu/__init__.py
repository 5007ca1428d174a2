"""The engine on an accelerator: the same rule and the same state, torch tensors and Triton kernels."""
