"""Inference on an x86 CPU by kernels of our own: faster, optional, built on demand.

For bfloat16 with AVX512-BF16, for float32 with AVX-512 or AVX2.

Where they cannot be had (another processor, no compiler, `DEWEY_NATIVE=0`) everything is done in
plain PyTorch, as it is for gradients.
"""
