from __future__ import annotations

import math
from typing import Any

import fake_cupy
import numpy as np
import pytest

from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.machine.memory import peak_device_bytes
from storm_edge.runtime.sessions.cuda import CudaDevice, from_bfloat16_bits, to_bfloat16_bits
from storm_edge.runtime.sessions.device import Stopwatch, open_device


def test_the_device_of_a_gpu_has_one_stream_and_is_opened_by_its_memorys_name(machine: Any) -> None:
    device = open_device("cuda")
    assert isinstance(device, CudaDevice)
    assert device.stream == device.stream != 0
    assert len(machine.gpu.streams) == 2


def test_everything_is_put_into_that_stream_and_done_when_the_host_reads(machine: Any) -> None:
    device = CudaDevice()
    tensor = device.put(np.arange(6, dtype=np.float32))
    joined = device.concatenate([tensor, device.zeros((2,), "float32")])
    device.write(joined[:2], np.array([9], np.int64))
    device.write(joined[6:], tensor[4:])
    assert not machine.gpu.null.waiting
    assert device.host(device.reshape(joined, (2, 4))).tolist() == [[9, 9, 2, 3], [4, 5, 4, 5]]
    assert not machine.gpu.stream(device.stream).waiting


def test_what_is_on_the_gpu_stays_where_it_is_and_host_memory_may_change_once_it_was_put(machine: Any) -> None:
    device = CudaDevice()
    given = np.ones(3, np.float32)
    tensor = device.put(given)
    given[:] = 0
    assert device.put(tensor) is tensor
    assert device.host(tensor).tolist() == [1, 1, 1]
    assert device.host(given) is given


def test_the_likeliest_is_found_on_the_gpu_and_what_is_no_number_is_noticed(machine: Any) -> None:
    device = CudaDevice()
    assert device.argmax(device.put(np.array([1, 5, 5, 0], np.float32))) == 1
    assert machine.gpu.to_host == [16]
    for wrong in (math.nan, math.inf, -math.inf):
        assert device.argmax(device.put(np.array([1, wrong], np.float32))) is None


def test_bfloat16_is_its_bits_rounded_to_nearest_even(machine: Any) -> None:
    device = CudaDevice()
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -3.3e38, 0.1], np.float32)
    bits = device.cast(values, "bfloat16")
    assert (bits.dtype, device.empty((1,), "bfloat16").dtype) == ("uint16", "uint16")
    with device:
        wide = from_bfloat16_bits(bits)
    expected = [1.0, 1.0, 1 + 2**-6, -3.3e38, 0.1]
    np.testing.assert_allclose(device.host(wide), expected, rtol=2**-9)
    assert to_bfloat16_bits(bits) is bits


def test_a_stopwatch_measures_the_gpu_and_does_not_wait_in_its_blocks(machine: Any) -> None:
    device = CudaDevice()
    watch = Stopwatch(device)
    for _ in range(2):
        with watch:
            device.zeros((4,), "float32")
    assert machine.gpu.stream(device.stream).synchronized == 0
    assert watch.seconds() == pytest.approx(2 * 3 / 1000)  # the mark, taking the memory, zeroing it: 1 ms each


def test_a_gpu_that_cannot_be_used_is_one_line(machine: Any) -> None:
    with fake_cupy.without_gpu(machine.cupy), pytest.raises(EngineError, match=r"no GPU .*InsufficientDriver.*doctor"):
        CudaDevice()


def test_failures_of_the_gpu_within_a_block_are_engine_errors(machine: Any) -> None:
    device = CudaDevice()
    with (
        pytest.raises(EngineError, match=r"the GPU failed \(cudaErrorIllegalAddress: twice\): see `storm doctor`"),
        device,
    ):
        raise fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress:\ntwice")
    with pytest.raises(KeyError), device:
        raise KeyError
    assert machine.gpu.current == [machine.gpu.null]


def test_scratch_memory_is_one_block_that_grows_and_never_shrinks(machine: Any) -> None:
    device = CudaDevice()
    small = device.scratch(1000)
    assert device.scratch(10) == small
    large = device.scratch(100_000)
    assert device.scratch(1000) == large != small


def test_an_answer_on_a_gpu_is_the_cpus_and_counts_the_gpus_memory_and_time(machine: Any, engines: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    answers = []
    opened, on_gpu = engines()
    prompt = ChatPrompt.read(opened.texts(opened.manifest.tokenizer), opened.root / opened.manifest.tokenizer)
    for record in (on_gpu, read_engine(opened, "cpu-fp32")):
        pipeline = Pipeline(opened, record, Stages.load(opened, record), prompt)
        answer = pipeline.open(frames, frames=12).ask("Which way?", SamplingOptions(max_tokens=8))
        answers.append((answer.read(), answer.stats))
    (ours, stats), (theirs, on_the_cpu) = answers
    assert ours == theirs
    assert stats.seconds["vision"] > 0
    assert stats.seconds["temporal"] > 0
    assert peak_device_bytes() == stats.peak_device_bytes == machine.gpu.taken
    assert on_the_cpu.answer_tokens == stats.answer_tokens
