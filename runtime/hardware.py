"""What the devices of the targets are, by their published figures: memory, bandwidth, arithmetic rates, software.

Rates are DENSE: half of what data sheets print "with sparsity". They are limits to compare with, not promises.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """One product. `memory` in GB (10^9 bytes), `bandwidth` in GB/s, `rates` in dense TFLOPS or TOPS by precision."""

    name: str
    memory: int
    bandwidth: float
    rates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """One set of platform software: its name, its TensorRT, and which language model precisions run in TensorRT."""

    name: str
    tensorrt: str
    llm_tensorrt: bool = True  # the decoder's TensorScatter and RotaryEmbedding need TensorRT 10.15


def _rates(fp16: float, int8: float, fp8: float | None = None, fp32: float | None = None) -> dict[str, float]:
    """Tensor-core rates; bf16 runs at fp16's rate, 4-bit weights are multiplied as 16-bit numbers."""
    rates = {"fp16": fp16, "bf16": fp16, "int4": fp16, "int8": int8}
    return rates | ({"fp8": fp8} if fp8 else {}) | ({"fp32": fp32} if fp32 else {})


DEVICES: dict[str, tuple[Device, ...]] = {
    # NVIDIA A100 Tensor Core GPU data sheet, 80 GB SXM.
    "a100": (Device("A100 80GB SXM", 80, 2039, _rates(312, 624)),),
    # NVIDIA L4 Tensor Core GPU data sheet: 242 and 485 with sparsity.
    "l4": (Device("L4", 24, 300, _rates(121, 242, 242)),),
    # NVIDIA L40S data sheet.
    "l40s": (Device("L40S", 48, 864, _rates(362, 733, 733)),),
    # NVIDIA H100 Tensor Core GPU data sheet, SXM: 1979 and 3958 with sparsity.
    "h100": (Device("H100 SXM", 80, 3350, _rates(989, 1979, 1979)),),
    # NVIDIA H200 Tensor Core GPU data sheet, SXM: the arithmetic of the H100.
    "h200": (Device("H200 SXM", 141, 4800, _rates(989, 1979, 1979)),),
    # NVIDIA HGX B200 data sheet, an eighth of eight GPUs.
    "b200": (Device("B200 SXM", 180, 7700, _rates(2250, 4500, 4500)),),
    # NVIDIA Jetson Orin Nano Super Developer Kit data sheet (33 dense INT8 TOPS, 17 FP16 TFLOPS), Jetson Orin NX Series
    # data sheet (1024 cores at 918 MHz: 60 sparse INT8 TOPS without the DLAs), Jetson AGX Orin Series technical brief
    # (GPU alone: 108 and 170 sparse INT8 TOPS; fp16 at half the rate).
    "orin": (
        Device("Orin Nano 8GB (Super)", 8, 102, _rates(17, 33)),
        Device("Orin NX 16GB", 16, 102.4, _rates(15, 30)),
        Device("AGX Orin 32GB", 32, 204.8, _rates(27, 54)),
        Device("AGX Orin 64GB", 64, 204.8, _rates(42.5, 85)),
    ),
    # NVIDIA Jetson Thor Series data sheet: 517 dense FP8 TFLOPS (T5000); fp16 is half of it, int8 taken as equal.
    "thor": (Device("Jetson T5000", 128, 273, _rates(258, 517, 517)),),
    # NVIDIA Ada and Blackwell GPU architecture white papers, appendix A; half types accumulate in fp32.
    "rtx": (
        Device("GeForce RTX 4090", 24, 1008, _rates(165, 661, 330)),
        Device("GeForce RTX 5090", 32, 1792, _rates(210, 838, 419)),
    ),
}

_JETPACK_6 = Release("JetPack 6.2", "10.3", llm_tensorrt=False)
_JETPACK_7 = (Release("JetPack 7.2", "10.16"), Release("JetPack 7.2.2", "11.4.1"))
_DATA_CENTER = (Release("TensorRT 10", "10.16"), Release("TensorRT 11", "11.1"))

# Platform software by target, oldest first. JetPack 6.1 to 6.2.1 have the same TensorRT; JetPack 7.2.2 brings 11.4.1 to
# AGX Orin and Thor only. Data-center machines take any TensorRT from 10.3 on; these two are the ones written against.
RELEASES: dict[str, tuple[Release, ...]] = {
    "orin": (_JETPACK_6, *_JETPACK_7),
    "thor": _JETPACK_7,
    **dict.fromkeys(("a100", "l4", "l40s", "h100", "h200", "b200"), _DATA_CENTER),
}
