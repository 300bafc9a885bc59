import numpy as np
import pytest

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.kv_cache import STEP, KvCache


@pytest.fixture
def cache():
    return KvCache([("past", "present")], heads=2, head_dim=4, dtype=np.float32, max_length=STEP * 2 + 100)


def test_the_buffer_has_the_step_that_holds_what_is_needed_and_ends_at_the_maximum(cache):
    lengths = []
    for needed in (1, STEP, STEP + 1, 2 * STEP + 1, 2 * STEP + 100, 3):
        cache.fit(needed, kept=0)
        lengths.append(cache.length)
    assert lengths == [STEP, STEP, 2 * STEP, 2 * STEP + 100, 2 * STEP + 100, STEP]


def test_contents_survive_growing_and_shrinking_and_the_rest_is_zero(cache):
    cache.fit(STEP, kept=0)
    cache._buffers[0][:] = np.nan
    cache._buffers[0][:, :, :10] = 1
    for needed in (STEP + 1, 20):
        cache.fit(needed, kept=10)
        assert (cache._buffers[0][:, :, :10] == 1).all()
        assert (cache._buffers[0][:, :, 10:] == 0).all()


def test_running_out_of_memory_is_said_and_leaves_a_usable_cache(cache, monkeypatch):
    cache.fit(10, kept=0)
    cache._buffers[0][:, :, :10] = 1

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(KvCache, "_zeros", fail)
        with pytest.raises(EngineError, match=f"cache of {2 * STEP} tokens"):
            cache.fit(STEP + 1, kept=10)
    cache.fit(10, kept=10)
    assert (cache._buffers[0][:, :, :10] == 1).all()
