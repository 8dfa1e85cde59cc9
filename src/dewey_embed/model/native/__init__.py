"""Work on an x86 CPU by kernels of our own: faster, optional, built on demand.

Inference for bfloat16 with AVX512-BF16, for float32 with AVX-512 or AVX2; in training attention
alone, with its gradients, in bfloat16 with AVX512-BF16.

Where they cannot be had (another processor, no compiler, `DEWEY_NATIVE=0`) everything is done in
plain PyTorch.
"""
