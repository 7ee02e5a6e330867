"""Triton kernels for an encoder layer on a GPU, or on a CPU in Triton's interpreter."""
