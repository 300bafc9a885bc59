"""The composed decoder in ONNX Runtime against transformers' Qwen2 in float32."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import BundleError, EngineError, UsageError
from storm_edge.runtime.llm.base import LanguageModel
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.stepwise import StepwiseGenerator

WIDTH, VOCAB = 64, 500


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def model(request, tmp_path_factory):
    """A tiny random Qwen2, its graphs, and a prompt of text around 60 visual embeddings."""
    folder = tmp_path_factory.mktemp("llm")
    config = LanguageConfig(
        hidden_size=WIDTH,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        max_position_embeddings=4096,
        rope_theta=10_000.0,
        tie_word_embeddings=request.param,
    )
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    theirs = Qwen2ForCausalLM(Qwen2Config(**config.model_dump(exclude={"rope_theta"}), rope_parameters=rope)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.uniform_(0.5, 1.5) if "norm" in name else parameter.normal_(std=0.15)
    theirs.save_pretrained(folder, max_shard_size="100KB")
    weights = Weights.open(folder)
    for dtype in ("float32", "float16", "bfloat16"):
        compose_decoder(config, weights, dtype).save(folder / f"{dtype}.onnx", f"{dtype}.data")
    write_embedding(weights, folder / "embedding.safetensors")
    embedding = EmbeddingTable.open(folder / "embedding.safetensors")
    visual = torch.randn(60, WIDTH).numpy()
    prompt = np.concatenate([embedding.rows(range(10)), visual, embedding.rows(range(20, 30))])

    def decoder(dtype="float32", max_length=2048, **options):
        return OnnxRuntimeDecoder(folder / f"{dtype}.onnx", config, embedding, max_length, threads=1, **options)

    return SimpleNamespace(
        folder=folder, config=config, theirs=theirs, embedding=embedding, prompt=prompt, decoder=decoder
    )


def _greedy(decoder: LanguageModel, logits, count):
    tokens = []
    for _ in range(count):
        tokens.append(int(logits.argmax()))
        logits = decoder.append(decoder.embed(tokens[-1:]))
    return tokens, logits


def _reference(theirs, embeds):
    with torch.no_grad():
        return theirs(inputs_embeds=torch.tensor(embeds)[None]).logits[0, -1].numpy()


def test_logits_and_greedy_tokens_are_those_of_transformers(model):
    decoder = model.decoder()
    logits = decoder.append(model.prompt)
    np.testing.assert_allclose(logits, _reference(model.theirs, model.prompt), atol=2e-5)
    embeds = torch.tensor(model.prompt)[None]
    expected = model.theirs.generate(inputs_embeds=embeds, max_new_tokens=24, do_sample=False, eos_token_id=None)
    tokens, _ = _greedy(decoder, logits, 24)
    assert tokens == expected[0].tolist()
    assert len(set(tokens)) > 8
    assert decoder.position == len(model.prompt) + 24


@pytest.mark.parametrize("chunk", [1, 7, 79, 80])
def test_a_prompt_in_chunks_equals_the_whole(model, chunk):
    np.testing.assert_allclose(
        model.decoder(chunk=chunk).append(model.prompt), model.decoder().append(model.prompt), atol=2e-5
    )


def test_growing_the_cache_preserves_what_it_holds(model):
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(1100, WIDTH)).astype(np.float32)
    decoder = model.decoder()
    decoder.append(embeds[:500])
    decoder.append(embeds[500:])  # from one step to three
    np.testing.assert_allclose(
        decoder.append(embeds[:1]), _reference(model.theirs, np.concatenate([embeds, embeds[:1]])), atol=5e-5
    )


def test_every_question_after_a_rewind_gets_the_answer_of_a_fresh_decoder_to_the_last_bit(model):
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 20, WIDTH)).astype(np.float32)
    decoder = model.decoder()
    decoder.append(model.prompt)
    prefix = decoder.position
    first = _greedy(decoder, decoder.append(one), 5)
    decoder.append(rng.normal(size=(900, WIDTH)).astype(np.float32))  # a long conversation grows the cache
    decoder.rewind(prefix)
    _greedy(decoder, decoder.append(two), 5)
    decoder.rewind(prefix)
    again = _greedy(decoder, decoder.append(one), 5)
    fresh = model.decoder()
    fresh.append(model.prompt)
    expected = _greedy(fresh, fresh.append(one), 5)
    for tokens, logits in (first, again):
        assert tokens == expected[0]
        np.testing.assert_array_equal(logits, expected[1])


def test_float16_stays_close_to_float32(model):
    exact, narrow = (model.decoder(dtype).append(model.prompt) for dtype in ("float32", "float16"))
    np.testing.assert_allclose(narrow, exact, atol=0.05)
    assert np.abs(narrow - exact).max() > 0


def test_a_graph_that_this_machine_cannot_run_is_an_engine_error(model):
    with pytest.raises(EngineError, match="cannot load") as caught:
        model.decoder("bfloat16")
    assert "\n" not in str(caught.value)


def test_tokens_beyond_the_capacity_are_refused_and_change_nothing(model):
    decoder = model.decoder(max_length=100)
    before = decoder.append(model.prompt)
    with pytest.raises(UsageError, match="21 more tokens after 80 do not fit the 100 of this engine"):
        decoder.append(np.zeros((21, WIDTH), np.float32))
    assert decoder.position == 80
    assert decoder.append(np.ones((20, WIDTH), np.float32)).shape == before.shape
    with pytest.raises(UsageError, match="1 more tokens after 100"):
        decoder.append(np.zeros((1, WIDTH), np.float32))


def test_a_capacity_beyond_the_models_positions_is_refused(model):
    for length in (0, 4097):
        with pytest.raises(UsageError, match=f"a length of {length} tokens"):
            model.decoder(max_length=length)


def test_a_graph_of_another_configuration_is_refused(model):
    other = model.config.model_copy(update={"num_key_value_heads": 4})
    with pytest.raises(BundleError, match=r"past_key_0, past_key_1, .* export the bundle again"):
        OnnxRuntimeDecoder(model.folder / "float32.onnx", other, model.embedding, 100)


@pytest.mark.parametrize("damage", ["graph", "data", "missing"])
def test_a_damaged_graph_is_an_engine_error(model, tmp_path, damage):
    for name in ("float32.onnx", "float32.data"):
        (tmp_path / name).write_bytes((model.folder / name).read_bytes())
    if damage == "graph":
        (tmp_path / "float32.onnx").write_bytes((tmp_path / "float32.onnx").read_bytes()[:500])
    elif damage == "data":
        (tmp_path / "float32.data").write_bytes((tmp_path / "float32.data").read_bytes()[:5000])
    else:
        (tmp_path / "float32.data").unlink()
    with pytest.raises(EngineError, match="cannot load") as caught:
        OnnxRuntimeDecoder(tmp_path / "float32.onnx", model.config, model.embedding, 100)
    assert "\n" not in str(caught.value)


def test_a_conversation_streams_from_prompt_to_text(model):
    write_byte_tokenizer(model.folder / "tokenizer", VOCAB)
    chat = ChatPrompt.open(model.folder / "tokenizer")
    generator = StepwiseGenerator(model.decoder())
    prompt = SplicedPrompt(range(10), model.prompt[10:-10], range(20, 30))
    options = SamplingOptions(max_tokens=40, temperature=1.0, seed=3)
    answers = []
    for _ in range(2):
        generation = Generation(generator.start(prompt, options, chat.eos_ids), chat.stream(), options.stop)
        answers.append("".join(generation))
        assert chat.decode(generation.ids) == answers[-1]
    assert answers[0] == answers[1]
    assert answers[0]
