"""Inference on a CPU with AVX512-BF16 by kernels of our own: faster, optional, built on demand.

Where they cannot be had (another processor, no compiler, `DEWEY_NATIVE=0`) everything is done in
plain PyTorch, as it is for gradients.
"""
