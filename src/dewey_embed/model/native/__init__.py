"""C++ kernels for x86 CPUs: faster, optional, built on demand.

Inference in bfloat16 with AVX512-BF16, in float32 with AVX-512 or AVX2; in training, attention and
int8 products with their gradients, in bfloat16 with AVX512-BF16. On another processor, without a
compiler, or with `DEWEY_NATIVE=0`, everything runs in plain PyTorch.
"""
