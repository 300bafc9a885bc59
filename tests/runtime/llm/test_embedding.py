import ml_dtypes
import numpy as np
import pytest

from storm_edge.export.checkpoint.weights import write_safetensors
from storm_edge.runtime.errors import BundleError, UsageError
from storm_edge.runtime.llm.embedding import NEWLINE_NAME, TENSOR_NAME, EmbeddingTable

TABLE = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rows_come_in_order_and_widened(tmp_path, dtype):
    write_safetensors(tmp_path / "e.safetensors", {TENSOR_NAME: TABLE.astype(dtype)})
    table = EmbeddingTable.open(tmp_path / "e.safetensors")
    rows = table.rows([3, 0, 9, 3])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, TABLE.astype(dtype).astype(np.float32)[[3, 0, 9, 3]])
    assert table.rows([]).shape == (0, 4)


@pytest.mark.parametrize("token", [-1, 10])
def test_ids_outside_the_vocabulary_are_refused(tmp_path, token):
    write_safetensors(tmp_path / "e.safetensors", {TENSOR_NAME: TABLE})
    with pytest.raises(UsageError, match=f"token id {token} is outside the vocabulary of 10"):
        EmbeddingTable.open(tmp_path / "e.safetensors").rows([1, token])


@pytest.mark.parametrize(
    "tensors",
    [{"other": TABLE}, {TENSOR_NAME: TABLE[0]}, {TENSOR_NAME: TABLE.astype(np.int32)}, None],
)
def test_a_file_that_is_no_embedding_table_is_refused(tmp_path, tensors):
    path = tmp_path / "e.safetensors"
    if tensors is None:
        path.write_bytes(b"nothing")
    else:
        write_safetensors(path, tensors)
    with pytest.raises(BundleError, match=r"e\.safetensors") as caught:
        EmbeddingTable.open(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError):
        EmbeddingTable.open(tmp_path / "none.safetensors")


def test_a_trained_line_end_is_the_row_after_the_vocabularys_last(tmp_path):
    path = tmp_path / "e.safetensors"
    write_safetensors(path, {TENSOR_NAME: TABLE, NEWLINE_NAME: np.full((1, 4), 7, np.float16)})
    table = EmbeddingTable.open(path)
    np.testing.assert_array_equal(table.rows([10, 9]), [[7] * 4, TABLE[9]])
    assert table.vocab_size == 10
    with pytest.raises(UsageError, match="token id 11"):
        table.rows([11])


def test_a_line_end_of_another_width_is_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    write_safetensors(path, {TENSOR_NAME: TABLE, NEWLINE_NAME: TABLE[:1, :3].copy()})
    with pytest.raises(BundleError, match="line end of another shape"):
        EmbeddingTable.open(path)
