"""2:4 weights on the CPU: packed once, read at the speed of memory, multiplied in C++ (layout.h, kernel.h, matmul.cpp).

`packing` packs a weight, `native` calls the kernels, and ONNX Runtime finds them as the operator `vlmc::MatMul24` in the
same shared library.
"""
