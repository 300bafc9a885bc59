from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LISTING = """
.text.scan:
        /*0000*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0010*/              @!P0 LDG.E.128 R8, desc[UR4][R2.64+0x4] ;
        /*0020*/                   LDGSTS.E [R5+0x5100], desc[UR4][R2.64], P5 ;
.L_x_0:
        /*0030*/                   FMUL R11, R11, R9 ;
{exponentials}
        /*0040*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
        /*0060*/                   FADD R1, R1, R1 ;
        /*0070*/                   FADD R1, R1, R1 ;
.L_x_1:
        /*0080*/                   FFMA R1, R4, R1, R1 ;
        /*0090*/               @P1 BRA `(.L_x_0) ;
        /*00a0*/                   STG.E desc[UR4][R2.64], R1 ;
        /*00b0*/                   EXIT ;
""".format(exponentials="\n".join(["        /*0038*/                   MUFU.EX2 R6, R6 ;"] * 16))


@pytest.fixture
def sass(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import sass

    return sass


def test_what_a_warp_issues_is_the_way_around_what_one_warp_does(sass: Any) -> None:
    loop = sass.state_loop(sass.parse(LISTING)["scan"])
    assert loop.kinds == {"MUFU.EX2": 16, "FMUL": 1, "BAR": 1, "BRA": 2, "FFMA": 1}
    assert loop.speaking == 2
    assert loop.mean == 21.25


def test_loads_count_until_the_first_is_waited_for(sass: Any) -> None:
    kernel = sass.parse(LISTING)["scan"]
    assert sass.loads_in_flight(kernel.code) == (3, 3)  # R11 and R9 are of the second, which is 128 bits wide
    assert sass.loads_in_flight([*kernel.code[:1], kernel.code[-4], *kernel.code[1:3]]) == (1, 3)
    assert [len(kernel.path(0, 4)), len(kernel.block_of_loads())] == [5, 3]


@pytest.fixture(scope="module")
def compiled() -> Any:
    """compiled(operator, dtype, sm): the kernels as nvcc compiles them; skips where there is no nvcc."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import compiled_kernels as module
    import sass

    nvcc, nvdisasm = module.find_nvcc(), sass.find_nvdisasm()
    if nvcc is None or nvdisasm is None:
        pytest.skip("needs nvcc and nvdisasm: install the CUDA toolkit, and `pip install nvidia-cuda-nvdisasm`")
    return lambda *given: module.compile_kernels(*given, nvcc, nvdisasm)


@pytest.mark.parametrize(("dtype", "sm"), [("bfloat16", 90), ("float16", 87), ("float32", 90)])
def test_the_scan_keeps_to_its_instructions_and_loads_before_it_waits(
    dtype: str, sm: int, compiled: Any, sass: Any
) -> None:
    own, any_states = compiled("selective_scan", dtype, sm)
    for kernel in (own, any_states):
        assert (kernel.spilled, kernel.stack) == (0, 0)
        assert kernel.registers <= 128  # two blocks of 256 threads an SM
    loop = sass.state_loop(own.kernel)
    assert loop.mean <= 160
    assert loop.kinds[sass.EXPONENTIAL] == sass.ELEMENTS
    before, at_all = sass.loads_in_flight(own.kernel.path(0, own.kernel.main_loop()[0]))
    assert at_all >= 30  # u, delta and z of 8 tokens, B or C, A, D and the bias
    assert before >= 24


@pytest.mark.parametrize(("dtype", "sm"), [("bfloat16", 90), ("float16", 87)])
def test_the_convolution_loads_its_strip_before_it_waits(dtype: str, sm: int, compiled: Any, sass: Any) -> None:
    for kernel in compiled("causal_conv1d", dtype, sm):
        assert (kernel.spilled, kernel.stack) == (0, 0)
        if kernel.made_for == "4":
            before, at_all = sass.loads_in_flight(kernel.kernel.block_of_loads())
            assert before == at_all >= 19
