"""BERT's encoder: who sees whom, what it is saved as, and what is refused."""

import keras
import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.models import BertBackbone

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "max_sequence_length": 12,
}


def backbone(**settings):
    keras.utils.set_random_seed(0)
    made = BertBackbone(**(SIZES | settings))
    for variable in made.trainable_variables:  # large weights, so that everything matters
        variable.assign(variable + np.random.normal(size=variable.shape) * 0.3)
    return made


def inputs(lengths=(7, 4), width=8, **changed):
    random = np.random.default_rng(1)
    shape = (len(lengths), width)
    made = {
        "token_ids": random.integers(1, 30, shape),
        "segment_ids": np.tile(np.arange(width) > 3, (len(lengths), 1)),
        "padding_mask": np.arange(width) < np.array(lengths)[:, None],
    }
    return {name: array.astype("int32") for name, array in (made | changed).items()}


def test_what_stands_in_the_padding_changes_nothing():
    model, x = backbone(), inputs()
    other = np.where(x["padding_mask"] == 1, x["token_ids"], 5)
    one, two = model(x), model(x | {"token_ids": other.astype("int32")})
    present = x["padding_mask"] == 1
    np.testing.assert_array_equal(
        one["sequence_output"].numpy()[present], two["sequence_output"].numpy()[present]
    )
    np.testing.assert_array_equal(one["pooled_output"], two["pooled_output"])


def test_every_token_sees_those_before_and_behind_it():
    model, x = backbone(), inputs(lengths=(8,))
    for place in (0, 7):
        changed = x["token_ids"].copy()
        changed[0, place] = 1 + changed[0, place] % 29
        moved = model(x | {"token_ids": changed})["sequence_output"] - model(x)["sequence_output"]
        assert np.abs(moved).max(-1).min() > 1e-3


def test_the_place_and_the_segment_of_a_token_matter():
    model = backbone()
    same = inputs(lengths=(8,), token_ids=np.full((1, 8), 3), segment_ids=np.zeros((1, 8)))
    y = model(same)["sequence_output"][0].numpy()
    assert np.abs(y[1:] - y[0]).max(-1).min() > 1e-3
    other = model(same | {"segment_ids": np.ones((1, 8), "int32")})["sequence_output"][0].numpy()
    assert np.abs(other - y).max(-1).min() > 1e-3


def test_the_pooled_output_is_made_of_the_first_token():
    model, x = backbone(), inputs()
    out = model(x)
    first = out["sequence_output"].numpy()[:, 0]
    kernel, bias = (variable.numpy() for variable in model.pooler.variables)
    np.testing.assert_allclose(out["pooled_output"], np.tanh(first @ kernel + bias), atol=1e-6)
    assert set(backbone(has_pooler=False)(x)) == {"sequence_output"}


def test_it_normalises_after_the_sub_layers():
    y = backbone(num_layers=1)
    last = y.blocks[0].feed_forward_norm
    last.gamma.assign(np.ones(16))
    last.beta.assign(np.zeros(16))
    hidden = y(inputs())["sequence_output"].numpy()
    np.testing.assert_allclose(hidden.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(hidden.std(-1), 1, atol=1e-4)


def test_dropout_stands_where_bert_has_it():
    model = backbone(dropout=0.2, attention_dropout=0.3)
    rates = {layer.name: layer.rate for layer in model._flatten_layers() if hasattr(layer, "rate")}
    assert rates == {
        "embedding_dropout": 0.2,
        "weight_dropout": 0.3,
        "residual_dropout": 0.2,
        "inner_dropout": 0.0,
    }


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_a_keras_file_gives_the_same_outputs(tmp_path, activation):
    model, x = backbone(activation=activation, attention_dropout=0.0), inputs()
    model.save(tmp_path / "bert.keras")
    again = keras.models.load_model(tmp_path / "bert.keras")
    assert again.get_config() == model.get_config()
    for name, y in model(x).items():
        np.testing.assert_array_equal(again(x)[name], y)


def test_the_activations_are_different_functions():
    found = [
        backbone(activation=name)(inputs())["sequence_output"].numpy()
        for name in ("gelu", "gelu_tanh", "relu")
    ]
    assert 1e-6 < np.abs(found[0] - found[1]).max() < 0.02
    assert np.abs(found[0] - found[2]).max() > 0.05


def test_a_size_that_no_model_has_is_refused():
    with pytest.raises(UserError, match="num_segments must be a whole number of at least 1, got 0"):
        backbone(num_segments=0)
