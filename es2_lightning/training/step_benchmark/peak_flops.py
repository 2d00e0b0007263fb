"""What GPUs can do at most, by their makers' data sheets."""

from __future__ import annotations

DENSE_BF16_TFLOPS = {
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "A40": 150,
    "A30": 165,
    "RTX A6000": 155,
    "RTX 6000 Ada": 364,
    "RTX 5090": 210,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""By a part of torch's name for the device, the more special first; without sparsity, with float32
accumulation."""


def peak_flops_of(device_name: str, dtype: str) -> float | None:
    """Matrix-product FLOPs per second; None where it is not known, as for float32."""
    if dtype not in ("bfloat16", "float16"):
        return None
    found = (t for name, t in DENSE_BF16_TFLOPS.items() if name.lower() in device_name.lower())
    tflops = next(found, None)
    return None if tflops is None else tflops * 1e12
