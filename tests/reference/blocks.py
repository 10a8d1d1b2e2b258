"""Quantizes a small matrix with ONNX Runtime's own quantizer of MatMulNBits.

    pip install -r tests/reference/requirements.txt && python tests/reference/blocks.py

Writes tests/reference/data/blocks.safetensors, with

| tensor | type and shape | meaning |
|---|---|---|
| `weight` | float32 [rows, columns] | the matrix, as checkpoints have it |
| `B.S.K.packed` | uint8 [rows, columns / S, S * B / 8] | its numbers of B bits in blocks of S |
| `B.S.K.scales` | float32 [rows, columns / S] | their scales |
| `B.S.K.zero_points` | uint8 [rows, bytes] | their packed zero points; only if K is `zero_points` and not `symmetric` |

These are the layouts that the operator takes: the same functions make the weights of ONNX Runtime's quantized models.
"""

from __future__ import annotations

from pathlib import Path

import numpy
from onnxruntime.capi import _pybind_state as runtime
from safetensors.numpy import save_file

DATA = Path(__file__).resolve().parent / "data"
# Three blocks of the largest size: zero points do not fill their bytes.
ROWS, COLUMNS = 5, 768
QUANTIZERS = {4: runtime.quantize_matmul_4bits, 8: runtime.quantize_matmul_8bits}


def main() -> None:
    """Writes the file."""
    random = numpy.random.default_rng(0)
    weight = random.standard_normal((ROWS, COLUMNS)).astype(numpy.float32)
    # Blocks without numbers of one sign, and one of zeros.
    weight[1] = numpy.abs(weight[1])
    weight[2] = -numpy.abs(weight[2])
    weight[3, :256] = 0
    tensors = {"weight": weight}
    for bits, quantize in QUANTIZERS.items():
        for size in (16, 32, 64, 128, 256):
            for symmetric in (True, False):
                blocks = COLUMNS // size
                zero_bytes = (blocks * bits + 7) // 8
                packed = numpy.zeros((ROWS, blocks, size * bits // 8), numpy.uint8)
                scales = numpy.zeros(ROWS * blocks, numpy.float32)
                zero_points = numpy.zeros(ROWS * zero_bytes, numpy.uint8)
                transposed = numpy.ascontiguousarray(weight.T)
                quantize(packed, transposed, scales, zero_points, size, ROWS, COLUMNS, symmetric)
                name = f"{bits}.{size}.{'symmetric' if symmetric else 'zero_points'}"
                tensors[f"{name}.packed"] = packed
                tensors[f"{name}.scales"] = scales.reshape(ROWS, blocks)
                if not symmetric:
                    tensors[f"{name}.zero_points"] = zero_points.reshape(ROWS, zero_bytes)
    save_file(tensors, DATA / "blocks.safetensors")


if __name__ == "__main__":
    main()
