"""KerasHub's language models in the precisions of exports."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_kerashub import TEXTS, gemma, hub, llama, with_clear_preferences

from tfllm.export import for_serving, inspect_export
from tfllm.export.precision import served_in
from tfllm.huggingface.kerashub import KerasHubCausalLM
from tfllm.huggingface.kerashub_products import MatrixForm
from tfllm.models.text_functions import build
from tfllm.tokenizers import train_sentencepiece


@pytest.fixture(scope="module", params=[gemma, llama])
def model(request):
    tokenizer = train_sentencepiece(TEXTS * 3, vocabulary_size=290)
    return KerasHubCausalLM(with_clear_preferences(request.param(num_layers=1)), tokenizer, 64)


TOKENS = tf.constant(np.random.default_rng(0).integers(3, 280, [3, 12]), tf.int32)


def logits(model):
    of = tf.function(lambda ids: model.logits(model.hidden_states(ids)), autograph=False)
    return of(TOKENS).numpy()


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("float32", 0.0, 1e-6), ("bfloat16", 1e-3, 0.03), ("int8", 5e-3, 0.08)],
)
def test_its_logits_are_nearly_those_of_float32(model, precision, least, most):
    expected = logits(model)
    with served_in(model, precision) as served:
        error = np.linalg.norm(logits(model) - expected) / np.linalg.norm(expected)
    assert least <= error <= most
    matrices = [v for v in served.variables if v.shape.rank == 2]
    assert {v.dtype.name for v in matrices} - {"float32"} == {precision} - {"float32"}


def test_behind_it_the_model_is_as_before_even_if_something_failed(model):
    expected = logits(model)

    def fail():
        with served_in(model, "int8"):
            logits(model)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not model.served
    assert not [layer for layer in model.model._flatten_layers() if "call" in vars(layer)]
    np.testing.assert_array_equal(logits(model), expected)


def test_rows_of_an_int8_model_say_what_each_says_alone_with_guesses_too(model):
    prompts = tf.constant(["the cat sat on the mat and the cat sat", "one two", "why not?"])
    with served_in(model, "int8"):
        plain, guessing = (build(model.text(prompt_lookup=n))["serving_default"] for n in (0, 2))
        together = plain(prompts)["text"].numpy().tolist()
        assert [plain(prompts[i : i + 1])["text"].numpy()[0] for i in range(3)] == together
        assert guessing(prompts)["text"].numpy().tolist() == together


def test_samples_of_one_prompt_are_those_that_each_gives_alone(model):
    generate = build(model.text())["generate"]

    def sampled(prompts, seeds):
        found = generate(
            prompt=tf.constant(prompts),
            max_new_tokens=tf.constant([12]),
            temperature=tf.constant([1.0]),
            seed=tf.constant(seeds, tf.int64),
        )
        return found["text"].numpy().tolist()

    prompts = ["one two", "why not?", "one two", "one two"]
    together = sampled(prompts, range(4))
    assert together == [sampled([prompt], [i])[0] for i, prompt in enumerate(prompts)]
    assert len(set(together)) > 1


def test_an_export_has_the_ops_of_int8_and_answers_as_the_live_model(tmp_path):
    tokenizer = train_sentencepiece(TEXTS * 3, vocabulary_size=290)
    small = KerasHubCausalLM(with_clear_preferences(llama(num_layers=1)), tokenizer, 32)
    version = for_serving(small, tmp_path / "llama", precision="int8")
    assert inspect_export(version)["metadata"]["internal_ops"] == ["_QuantizedMatMul"]


@pytest.mark.parametrize(
    ("equation", "inputs", "kernel"),
    [
        ("bqm,muh->bquh", (2, 3, 4), (4, 5, 6)),
        ("bquh,uhm->bqm", (2, 3, 5, 6), (5, 6, 4)),
        ("btd,ndh->btnh", (2, 3, 4), (5, 4, 6)),
        ("...x,xy->...y", (2, 3, 4), (4, 5)),
    ],
)
def test_a_kernel_is_the_matrix_that_gives_the_einsum(equation, inputs, kernel):
    random = np.random.default_rng(0)
    x, weights = random.normal(size=inputs), random.normal(size=kernel)
    form = MatrixForm.of(equation)
    matrix = form.matrix(weights)
    expected = np.einsum(equation, x, weights)
    found = x.reshape(-1, len(matrix)) @ matrix
    np.testing.assert_allclose(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("equation", ["betd,edf->betf", "bth,thd->btd", "td,btd->bt"])
def test_what_is_no_product_with_one_matrix_has_no_form(equation):
    assert MatrixForm.of(equation) is None


def test_what_chooses_among_experts_is_not_rounded():
    sizes = {"num_experts": 4, "top_k": 2, "num_query_heads": 4, "num_key_value_heads": 2}
    sizes |= {"vocabulary_size": 300, "num_layers": 1, "hidden_dim": 32, "intermediate_dim": 48}
    tokenizer = train_sentencepiece(TEXTS * 3, vocabulary_size=290)
    small = KerasHubCausalLM(hub.MixtralCausalLM(hub.MixtralBackbone(**sizes)), tokenizer, 32)
    with served_in(small, "int8") as served:
        kept = [variable for variable in served.variables if variable.shape == (32, 4)]
    assert [variable.dtype.name for variable in kept] == ["float32"]
