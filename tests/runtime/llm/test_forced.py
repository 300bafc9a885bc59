import numpy as np

from storm_edge.runtime.llm.forced import divergences, log_softmax, mean_divergence

LOGITS = np.random.default_rng(0).normal(scale=3, size=(4, 10)).astype(np.float32)


def test_log_softmax_gives_logarithms_of_probabilities_without_overflow():
    np.testing.assert_allclose(np.exp(log_softmax(LOGITS)).sum(axis=1), 1)
    np.testing.assert_allclose(log_softmax(LOGITS + np.float32(1e4)), log_softmax(LOGITS), atol=1e-2)


def test_the_divergence_is_that_of_its_definition_and_nothing_of_equal_logits():
    theirs, ours = log_softmax(LOGITS), log_softmax(LOGITS[::-1].copy())
    expected = [sum(np.exp(p) * (p - q)) for p, q in zip(theirs, ours, strict=True)]
    np.testing.assert_allclose(divergences(theirs, ours), expected)
    assert mean_divergence([divergences(theirs, ours)]) > 0.1
    assert mean_divergence([np.array([-1e-17])]) == 0
