"""Products on CUDA by kernels of our own, each where a comparison on this device showed that it is right and faster.

In go batches of matrices and torch's own way to a result; out comes the result, or None where torch's way is taken.
``products`` asks and ``choice`` decides, without Triton; ``symmetric`` and ``quintics`` are the kernels and import it.

Nothing here was ever run on a GPU: the kernels are checked in Triton's interpreter and compiled for devices of
capability 8.0 and 9.0 (tests/kernels), and no time was measured.
"""
