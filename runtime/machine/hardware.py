"""What the devices of the targets are, by their published figures: memory, bandwidth, arithmetic rates, software.

Rates are DENSE: half of what data sheets print "with sparsity". They are limits to compare with, not promises.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """One product: `bandwidth` in GB/s (10^9 bytes), `rates` in dense TFLOPS or TOPS by precision.

    `memory` is in the GB that the product is named after, of which a driver shows up to as many GiB.
    """

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


# Checked in November 2026 against publications that quote the documents named here, except where it says "derived" or
# "not confirmed". Sparse figures are halved.
DEVICES: dict[str, tuple[Device, ...]] = {
    # NVIDIA A100 data sheet 1758950 r4, 80 GB SXM: 2,039 GB/s; 312 TFLOPS and 624 TOPS, dense.
    "a100": (Device("A100 80GB SXM", 80, 2039, _rates(312, 624)),),
    # NVIDIA L4 data sheet: 24 GB, 300 GB/s; sparse 242 TFLOPS in 16 bits, 485 in FP8 and INT8.
    "l4": (Device("L4", 24, 300, _rates(121, 242, 242)),),
    # NVIDIA L40S data sheet: 48 GB, 864 GB/s; dense 362 in 16 bits, 733 in FP8 and INT8.
    "l40s": (Device("L40S", 48, 864, _rates(362, 733, 733)),),
    # NVIDIA H100 data sheet, SXM: 80 GB, 3.35 TB/s; sparse 1,979 in 16 bits, 3,958 in FP8 and INT8.
    "h100": (Device("H100 SXM", 80, 3350, _rates(989, 1979, 1979)),),
    # NVIDIA H200 data sheet, SXM: 141 GB, 4.8 TB/s; the arithmetic of the H100.
    "h200": (Device("H200 SXM", 141, 4800, _rates(989, 1979, 1979)),),
    # NVIDIA HGX B200 data sheet, one of eight GPUs: 180 GB, 7.7 TB/s (8 TB/s and 192 GB were announced before); dense
    # 2,250 in 16 bits, 4,500 in FP8 and INT8.
    "b200": (Device("B200 SXM", 180, 7700, _rates(2250, 4500, 4500)),),
    # The GPU alone, without the DLAs; FP16 runs at half of INT8 (Jetson AGX Orin technical brief: 16 half-precision
    # instructions for 32 of integers).
    # - Jetson Orin Nano Super Developer Kit page: 102 GB/s; 67 sparse and 33 dense INT8 TOPS, 17 FP16 TFLOPS.
    # - Jetson Orin NX Series data sheet: 128 bits of LPDDR5 at 6,400 MT/s, 32 tensor cores at 918 MHz. The rate is
    #   derived (1,024 dense INT8 operations a clock and tensor core, as on AGX Orin: 30.1); NVIDIA's is not confirmed.
    # - Jetson AGX Orin Series data sheet DS-10662-001 v1.8: 204.8 GB/s; 108 sparse INT8 TOPS at 939 MHz (32 GB), 170
    #   at 1.3 GHz (64 GB).
    "orin": (
        Device("Orin Nano 8GB (Super)", 8, 102, _rates(17, 33)),
        Device("Orin NX 16GB", 16, 102.4, _rates(15, 30)),
        Device("AGX Orin 32GB", 32, 204.8, _rates(27, 54)),
        Device("AGX Orin 64GB", 64, 204.8, _rates(42.5, 85)),
    ),
    # NVIDIA Jetson Thor Series data sheet, T5000: 128 GB, 273 GB/s; sparse 2,070 TFLOPS in FP4, 1,035 in FP8. Derived:
    # INT8 as FP8, fp16 half of it (20 SMs at 1.57 GHz make 257); NVIDIA's figures for these two are not confirmed.
    "thor": (Device("Jetson T5000", 128, 273, _rates(258, 517, 517)),),
    # NVIDIA Ada and RTX Blackwell GPU architecture white papers, appendix A; half types and FP8 accumulate in fp32. The
    # RTX 4090's FP8 and INT8 rates are not confirmed.
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
