import keras
import numpy as np
import pytest

from tfllm.models import GPTBackbone, LSTMBackbone

GPT = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": 16,
    "dropout": 0.1,
    "layer_norm_epsilon": 1e-3,
}
LSTM = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "hidden_dim": 8,
    "max_sequence_length": 16,
    "tie_embeddings": False,
    "dropout": 0.1,
}
BOTH = pytest.mark.parametrize(("backbone", "config"), [(GPTBackbone, GPT), (LSTMBackbone, LSTM)])


@pytest.fixture
def inputs():
    x = {"token_ids": np.arange(20).reshape(2, 10), "segment_ids": np.ones([2, 10])}
    return {name: a.astype("int32") for name, a in x.items()} | {
        "positions": np.tile(np.arange(10, dtype="int32"), [2, 1])
    }


@BOTH
def test_a_config_makes_the_same_backbone_again(backbone, config):
    one = backbone(**config, dtype="mixed_bfloat16", name="its_name")
    assert {name: one.get_config()[name] for name in config} == config
    again = backbone.from_config(one.get_config())
    assert again.get_config() == one.get_config()
    assert [v.shape for v in again.variables] == [v.shape for v in one.variables]


@BOTH
def test_a_backbone_is_a_layer_of_another_functional_model(backbone, config, inputs, tmp_path):
    one = backbone(**config)
    symbols = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
    classes = keras.layers.Dense(3)(one(symbols)[:, -1])
    model = keras.Model(symbols, classes)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_gpt_begins_as_gpt_2_does():
    wide = GPTBackbone(1000, 8, 2, 128, max_sequence_length=64)
    deviations = {
        path: {float(np.std(v)) for v in wide.trainable_variables if path in v.path}
        for path in ("embeddings", "query/kernel", "output/kernel", "outer/kernel")
    }
    for path, found in deviations.items():
        written = path in ("output/kernel", "outer/kernel")
        expected = 0.02 / np.sqrt(16) if written else 0.02
        np.testing.assert_allclose(list(found), expected, rtol=0.05, err_msg=path)


def test_positions_tell_gpt_where_a_token_stands(inputs):
    backbone = GPTBackbone(**GPT)
    shifted = inputs | {"positions": inputs["positions"] + 3}
    assert np.abs(backbone(inputs) - backbone(shifted)).max() > 1e-3


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="got 3 heads for width 8"):
        GPTBackbone(**GPT | {"num_heads": 3})


def test_the_output_table_of_an_untied_lstm_is_another_weight():
    tied, untied = (LSTMBackbone(**LSTM | {"tie_embeddings": tie}) for tie in (True, False))
    assert untied.count_params() - tied.count_params() == 40 * 8
