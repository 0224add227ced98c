"""LoRA: what trains, what is merged, and that a merged model answers as the live one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.export import for_serving
from tfllm.models import (
    CausalLM,
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    MarianBackbone,
    MarianSeq2SeqLM,
    MaskedLM,
    SpanQA,
    T5Backbone,
    T5Seq2SeqLM,
    TextClassifier,
    enable_lora,
    merge_lora,
)
from tfllm.models.lora_merging import merged

SMALL = {"num_layers": 1, "hidden_dim": 16}
SIZES = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
PROMPTS = ["one two", "a cat", "红"]
TEXTS = ["the cat sat", "good film", "who is 你"]
COMPLETIONS = [" three", " sat", "绿"]


def scores(model):
    return [score.logprob for score in model.score(PROMPTS, COMPLETIONS)]


def with_lora(model, rank=2, **settings):
    """The model with LoRA that changes what it says."""
    enable_lora(model, rank, **settings)
    for i, variable in enumerate(model.trainable_variables):
        if "lora" in variable.path:
            variable.assign(tf.random.stateless_normal(variable.shape, (0, i)))
    return model


def trained(model):
    return {variable.path for variable in model.trainable_variables}


def lora_of(*linears):
    return {f"{linear}/lora_kernel_{letter}" for linear in linears for letter in "ab"}


def state(model):
    return [(variable.path, variable.trainable, variable.numpy()) for variable in model.variables]


def test_query_and_value_train_and_nothing_else(new_model):
    model = new_model("gpt", num_layers=2, hidden_dim=16)
    count = enable_lora(model, 3)
    assert trained(model) == lora_of(
        *(f"block_{i}/attention/{name}" for i in (0, 1) for name in ("query", "value"))
    )
    assert count == 2 * 2 * (16 * 3 + 3 * 16)


def test_the_targets_and_the_feed_forward_are_chosen(new_model):
    model = new_model("gpt", **SMALL)
    enable_lora(model, 2, targets=("key", "output"), feed_forward=True)
    assert trained(model) == lora_of(
        "block_0/attention/key",
        "block_0/attention/output",
        "block_0/feed_forward/inner",
        "block_0/feed_forward/outer",
    )


@pytest.mark.parametrize(
    ("task", "settings", "head"),
    [
        (TextClassifier, {"num_classes": 2}, ("head", "pooler")),
        (SpanQA, {}, ("head",)),
        (MaskedLM, {}, ("head/dense", "head/norm", "output_bias")),
        (
            MaskedLM,
            {"next_sentence": True},
            ("head/dense", "head/norm", "output_bias", "next_sentence_head", "pooler"),
        ),
    ],
)
def test_the_head_of_the_task_trains_and_a_pooler_that_it_reads(new_encoder, task, settings, head):
    model = new_encoder(task, **settings)
    enable_lora(model, 2)
    lora = lora_of("block_0/attention/query", "block_0/attention/value")
    assert lora <= trained(model)
    assert {path.rpartition("/")[0] for path in trained(model) - lora} == set(head)


def test_in_a_decoder_both_attentions_are_changed_and_a_gate_is_of_the_feed_forward():
    gated = T5Seq2SeqLM(T5Backbone(**SIZES, use_gated_activation=True))
    enable_lora(gated, 2, targets=("query",), feed_forward=True)
    feed_forward = ("feed_forward/inner", "feed_forward/outer", "feed_forward/gate")
    assert trained(gated) == lora_of(
        *(f"encoder_block_0/{name}" for name in ("attention/query", *feed_forward)),
        *(
            f"decoder_block_0/{name}"
            for name in ("attention/query", "memory_attention/query", *feed_forward)
        ),
    )


def test_marian_s_bias_of_the_logits_stays_frozen():
    model = MarianSeq2SeqLM(MarianBackbone(**SIZES))
    enable_lora(model, 2)
    assert all("lora" in path for path in trained(model))
    assert len(trained(model)) == 2 * 3 * 2


def test_the_change_is_alpha_over_rank_times_the_two_matrices(new_model):
    model = new_model("gpt", **SMALL)
    query = model.backbone.blocks[0].attention.query
    before = query.kernel.numpy()
    with_lora(model, 4, alpha=2)
    change = 2 / 4 * query.lora_kernel_a.numpy() @ query.lora_kernel_b.numpy()
    assert np.abs(change).max() > 0.1
    np.testing.assert_allclose(query.kernel, before + change, rtol=1e-6)
    assert merge_lora(model) == 2
    np.testing.assert_allclose(query.kernel, before + change, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: T5Seq2SeqLM(T5Backbone(**SIZES)),
        lambda: MarianSeq2SeqLM(MarianBackbone(**SIZES)),
    ],
    ids=["t5", "marian"],
)
def test_a_merged_model_is_a_plain_one_with_the_same_logits(make):
    keras.utils.set_random_seed(0)
    model = make()
    ids = np.arange(1, 13, dtype="int32").reshape(2, 6)
    names = model.backbone.input
    inputs = {name: ids if "ids" in name else np.ones_like(ids) for name in names}
    plain = model(inputs)
    with_lora(model, feed_forward=True)
    live = model(inputs)
    assert np.abs(live - plain).max() > 1e-2
    merge_lora(model)
    assert not any("lora" in variable.path for variable in model.variables)
    np.testing.assert_allclose(model(inputs), live, atol=1e-5)


def test_an_export_is_plain_and_answers_as_the_live_model(new_encoder, tmp_path):
    model = with_lora(new_encoder(TextClassifier, num_classes=2), rank=3)
    live, before = model(model.preprocessor(TEXTS)), state(model)
    version = for_serving(model, tmp_path / "classifier")
    for (path, trains, value), (old_path, trained_before, old) in zip(
        state(model), before, strict=True
    ):
        assert (path, trains) == (old_path, trained_before)
        np.testing.assert_array_equal(value, old)

    classify = tf.saved_model.load(str(version)).signatures["classify"]
    answer = classify(text=tf.constant(TEXTS), text_pair=tf.constant([""]))
    np.testing.assert_allclose(answer["scores"], tf.nn.softmax(live), atol=1e-5)
    shapes = [shape for _, shape in tf.train.list_variables(str(version / "variables/variables"))]
    assert [16, 2] in shapes  # the head
    assert [16, 3] not in shapes


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_preset_is_plain_with_the_merged_kernels_in_float32(new_model, tmp_path, dtype):
    model = with_lora(new_model("gpt", dtype=dtype, **SMALL))
    model.save_to_preset(tmp_path / "preset")
    loaded = CausalLM.from_preset(tmp_path / "preset")
    assert not any("lora" in variable.path for variable in loaded.variables)
    for name in ("query", "value"):
        linear = getattr(model.backbone.blocks[0].attention, name)
        change = linear.lora_kernel_a.numpy() @ linear.lora_kernel_b.numpy()
        kernel = getattr(loaded.backbone.blocks[0].attention, name).kernel
        # bfloat16 would be 4e-3 off.
        np.testing.assert_allclose(kernel, linear._kernel.numpy() + change, rtol=1e-5, atol=1e-6)
    if dtype == "float32":
        np.testing.assert_allclose(scores(loaded), scores(model), atol=1e-5)


def test_training_goes_on_as_if_nothing_had_been_merged_for_a_while(new_model, pack):
    batch = pack([["one two three"], ["a cat is"]], 16)
    final = []
    for merge in (False, True):
        model = new_model("gpt", **SMALL)
        enable_lora(model, 2)
        model.compile(keras.optimizers.Adam(0.1))
        model.train_on_batch(*batch)
        if merge:
            with merged(model):
                assert not any("lora" in path for path, *_ in state(model))
        model.train_on_batch(*batch)
        final.append(state(model))
    for (path, _, value), (other_path, _, other) in zip(*final, strict=True):
        assert path == other_path
        np.testing.assert_array_equal(value, other)


def test_two_replicas_equal_one_device_and_what_is_frozen_stays(train_on_one_and_on_two):
    # See test_freezing.py for the frozen weights of all kinds.
    texts = np.array(["the cat sat", "one two", "good film", "who is 你"])
    dataset = tf.data.Dataset.from_tensors((texts, np.array([0, 1, 1, 0]))).repeat(3)
    losses, weights = train_on_one_and_on_two(_adapted_classifier, dataset, 0.5, num_classes=2)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert len(weights[0]) == 4 + 4
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def _adapted_classifier(*args, **settings):
    model = TextClassifier(*args, **settings)
    enable_lora(model, 2)
    return model


def test_what_cannot_be_adapted_is_refused(new_model):
    gpt = new_model("gpt", **SMALL)
    with pytest.raises(UserError, match="rank of LoRA must be at least 1: got 0"):
        enable_lora(gpt, 0)
    with pytest.raises(UserError, match=r"some of query, key, value, output: got \['keys'\]"):
        enable_lora(gpt, 1, targets=["keys"])
    with pytest.raises(UserError, match=r"some of query, .*: got \[\]"):
        enable_lora(gpt, 1, targets=[])
    enable_lora(gpt, 1)
    with pytest.raises(UserError, match="has LoRA already: merge_lora"):
        enable_lora(gpt, 1)
    attentive = LSTMSeq2SeqLM(LSTMSeq2SeqBackbone(vocabulary_size=9, num_layers=1, hidden_dim=4))
    for model, name in ((new_model("lstm", **SMALL), "LSTMB"), (attentive, "LSTMSeq2SeqB")):
        with pytest.raises(UserError, match=f"the backbone here is a {name}ackbone: freeze some"):
            enable_lora(model, 1)
