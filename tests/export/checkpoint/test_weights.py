import json
import re
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from storm_edge.export.checkpoint.weights import INDEX_NAME, LazyTensor, Weights, convert, write_safetensors
from storm_edge.runtime.errors import CheckpointError, UsageError

TENSORS = {
    "half": np.arange(3, dtype=np.float16),
    "brain": np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "full": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def sharded(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"x": np.ones(2, np.float32)})
    write_safetensors(tmp_path / "b.safetensors", {"y": np.ones(3, np.float32)})
    _write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    return tmp_path


def _write_index(folder, weight_map):
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        Weights.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_every_type_is_written_so_that_the_library_reads_it_back(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_what_the_library_wrote_is_read_with_types_and_shapes(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    with Weights.open(tmp_path) as weights:
        assert weights.names == sorted(TENSORS)
        assert weights.shapes["full"] == (2, 2, 2)
        assert {name: weights.dtype(name) for name in ("half", "brain", "full")} == {
            "half": "float16",
            "brain": "bfloat16",
            "full": "float32",
        }
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(weights.read(name), tensor)


def test_writing_holds_one_tensor_at_a_time_and_gives_equal_bytes(tmp_path):
    alive = []

    def make(value):
        alive.append(value)
        return np.full(4, value, np.float32)

    entries = {str(i): LazyTensor(np.dtype(np.float32), (4,), lambda i=i: make(i)) for i in range(3)}
    write_safetensors(tmp_path / "one", entries)
    assert alive == [0, 1, 2]
    write_safetensors(tmp_path / "two", entries)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_lazy_tensor_that_breaks_its_promise_is_refused(tmp_path):
    entry = LazyTensor(np.dtype(np.float32), (4,), lambda: np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=re.escape("x was announced as float32[4], came as float32[5]")):
        write_safetensors(tmp_path / "file", {"x": entry})


def test_a_transposed_view_is_written_row_by_row(tmp_path):
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_safetensors(tmp_path / "file", {"x": tensor})
    np.testing.assert_array_equal(load_file(tmp_path / "file")["x"], tensor)


def test_shards_are_read_as_one(sharded):
    with Weights.open(sharded) as weights:
        assert weights.names == ["x", "y"]
        np.testing.assert_array_equal(weights.read("y"), np.ones(3))


def test_a_single_file_of_another_name_is_found(tmp_path):
    write_safetensors(tmp_path / "temporal.safetensors", {"x": np.ones(2, np.float32)})
    assert Weights.open(tmp_path).names == Weights.open(tmp_path / "temporal.safetensors").names == ["x"]


@pytest.mark.parametrize("kept", [0, 7, 8, 40, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:kept])
    _refused(tmp_path, "model.safetensors", "truncated")


def test_bytes_behind_the_last_tensor_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    path.write_bytes(path.read_bytes() + b"more")
    _refused(tmp_path, "model.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"{" * 5000,
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        b'{"x":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    ],
)
def test_a_bad_header_is_refused(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    _refused(tmp_path, "model.safetensors")


def test_a_header_longer_than_the_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    _refused(tmp_path, "model.safetensors")


def test_a_missing_shard_is_named(sharded):
    (sharded / "b.safetensors").unlink()
    _refused(sharded, "b.safetensors", "missing")


def test_a_tensor_that_the_index_lists_and_no_shard_has_is_named(sharded):
    _write_index(sharded, {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"})
    _refused(sharded, "z", "b.safetensors")


def test_a_tensor_that_the_index_does_not_list_is_named(sharded):
    write_safetensors(sharded / "b.safetensors", {"y": np.ones(3, np.float32), "stray": np.ones(1, np.float32)})
    _refused(sharded, "stray")


def test_a_tensor_in_two_shards_is_refused(sharded):
    write_safetensors(sharded / "b.safetensors", {"y": np.ones(3, np.float32), "x": np.ones(2, np.float32)})
    _refused(sharded, "tensor x", "a.safetensors", "b.safetensors")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/x.safetensors", "sub/b.safetensors", "b.bin"])
def test_an_index_that_points_out_of_its_folder_is_refused(sharded, name):
    _write_index(sharded, {"x": "a.safetensors", "y": name})
    _refused(sharded, repr(name))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"x": 1}}', "\x00"])
def test_a_damaged_index_is_refused(sharded, text):
    (sharded / INDEX_NAME).write_text(text)
    _refused(sharded, INDEX_NAME)


def test_a_folder_without_weights_or_with_several_files_and_no_index_is_refused(tmp_path):
    _refused(tmp_path, "none")
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", {name: np.ones(1, np.float32)})
    _refused(tmp_path, "a.safetensors, b.safetensors")
    _refused(tmp_path / "absent", "absent")


def test_a_missing_tensor_and_an_unusable_type_are_named(tmp_path):
    save_file({"x": np.zeros(2, np.complex64)}, tmp_path / "model.safetensors")
    weights = Weights.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"tensor x .* type C64"):
        weights.read("x")
    with pytest.raises(CheckpointError, match="tensor y is missing"):
        weights.shape("y")


def test_conversion_rounds_and_refuses_what_float16_cannot_hold():
    tensor = np.array([1.0, 3.14159, -2e-3], np.float32)
    np.testing.assert_array_equal(convert(tensor, "bfloat16", "x"), tensor.astype(ml_dtypes.bfloat16))
    with pytest.raises(UsageError, match=r"tensor x holds 70144, beyond float16.*bfloat16"):
        convert(np.array([1, 70000], ml_dtypes.bfloat16), "float16", "x")
    np.testing.assert_array_equal(convert(np.array([np.inf], np.float32), "float16", "x"), [np.inf])
