"""The LSTM that takes BERT's place: what it reads, and every task of an encoder on top of it."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tfllm.models
from tfllm.errors import UserError
from tfllm.models import (
    BertBackbone,
    EncoderPreprocessor,
    LSTMEncoderBackbone,
    MaskedLM,
    SpanQA,
    TextClassifier,
    TextEmbedder,
    build,
)

SIZES = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "hidden_dim": 16,
    "max_sequence_length": 32,
    "dropout": 0.0,
}
TEXTS = ["good film", "bad film", "a very good cat", "the dog is bad [MASK]"]
Y = np.array([1, 0, 1, 0])

# Task, its settings, what it is trained on, its signature, and what it is asked.
TASKS = {
    "classifier": (
        TextClassifier,
        {"labels": ["sad", "glad"]},
        (TEXTS, Y),
        "classify",
        (TEXTS, [""] * 4),
    ),
    "masked_lm": (MaskedLM, {"next_sentence": True}, (TEXTS,), "fill_mask", (TEXTS,)),
    "embedder": (
        TextEmbedder,
        {},
        ((TEXTS, TEXTS[::-1]), Y.astype("float32")),
        "embed",
        (TEXTS,),
    ),
    "span_qa": (
        SpanQA,
        {},
        ((["where", "who"], ["the cat sat on mat", "a dog"]), np.array([[11, 17], [0, 0]])),
        "answer",
        (["where", "who"], ["the cat sat on mat", "a dog"]),
    ),
}


def backbone(**settings):
    keras.utils.set_random_seed(0)
    made = LSTMEncoderBackbone(**(SIZES | settings))
    random = np.random.default_rng(0)
    for variable in made.trainable_variables:  # large weights, so that everything matters
        variable.assign(variable + random.normal(size=variable.shape) * 0.2)
    return made


def inputs(lengths=(7, 4), width=8):
    shape = (len(lengths), width)
    made = {
        "token_ids": np.random.default_rng(1).integers(1, 50, shape),
        "segment_ids": np.tile(np.arange(width) > 3, (len(lengths), 1)),
        "padding_mask": np.arange(width) < np.array(lengths)[:, None],
    }
    return {name: array.astype("int32") for name, array in made.items()}


def test_padding_reaches_no_token():
    model, x = backbone(), inputs()
    out, present = model(x), x["padding_mask"] == 1
    others = {
        "other tokens": {"token_ids": np.where(present, x["token_ids"], 5).astype("int32")},
        "another segment": {"segment_ids": np.where(present, x["segment_ids"], 0).astype("int32")},
    }
    for other in others.values():
        found = model(x | other)
        np.testing.assert_array_equal(
            found["sequence_output"].numpy()[present], out["sequence_output"].numpy()[present]
        )
        np.testing.assert_array_equal(found["pooled_output"], out["pooled_output"])
    for row, length in enumerate((7, 4)):
        alone = model({name: array[row : row + 1, :length] for name, array in x.items()})
        np.testing.assert_allclose(
            alone["sequence_output"][0], out["sequence_output"][row, :length], atol=1e-6
        )
        np.testing.assert_allclose(alone["pooled_output"][0], out["pooled_output"][row], atol=1e-6)


def test_a_layer_adds_to_what_it_reads_which_is_normalised():
    def norm(layer, x):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-5) * layer.gamma + layer.beta

    lstm = backbone().lstm
    x = tf.random.stateless_normal([2, 5, 16], (1, 2))

    def both(i, x):
        left = lstm.backward[i](tf.reverse(x, [1]))[0]
        return tf.concat([lstm.forward[i](x)[0], tf.reverse(left, [1])], -1)

    first = norm(lstm.norms[0], both(0, x))
    expected = first + both(1, first)
    np.testing.assert_allclose(lstm(x, tf.ones([2, 5], tf.int32)), expected, atol=1e-5)


def test_every_token_knows_those_before_and_behind_it():
    model, x = backbone(), inputs(lengths=(8,))
    for place in (0, 7):
        changed = x["token_ids"].copy()
        changed[0, place] = 1 + changed[0, place] % 49
        moved = model(x | {"token_ids": changed})["sequence_output"] - model(x)["sequence_output"]
        assert np.abs(moved).max(-1).min() > 1e-5


def test_the_segment_of_a_token_matters():
    model, x = backbone(), inputs(lengths=(8,))
    other = model(x | {"segment_ids": 1 - x["segment_ids"]})["sequence_output"]
    assert np.abs(other - model(x)["sequence_output"]).max(-1).min() > 1e-3


def test_the_pooled_output_is_made_of_each_unit_s_largest_value():
    model, x = backbone(), inputs(lengths=(5,))
    out = model(x)
    largest = out["sequence_output"].numpy()[:, :5].max(1)
    kernel, bias = (variable.numpy() for variable in model.pooler.variables)
    np.testing.assert_allclose(out["pooled_output"], np.tanh(largest @ kernel + bias), atol=1e-6)
    assert set(backbone(has_pooler=False)(x)) == {"sequence_output"}


def test_a_classifier_pools_alike_where_the_backbone_does_not():
    keras.utils.set_random_seed(0)
    model = TextClassifier(backbone(has_pooler=False), num_classes=2)
    x = inputs(lengths=(5,))
    largest = model.backbone(x)["sequence_output"][:, :5].numpy().max(1)
    np.testing.assert_allclose(model(x), model.head(model.pooler(tf.constant(largest))), atol=1e-6)


def test_dropout_stands_around_the_layers():
    rates = {
        layer.name: layer.rate
        for layer in backbone(dropout=0.2)._flatten_layers()
        if hasattr(layer, "rate")
    }
    assert rates == {"embedding_dropout": 0.2, "between": 0.2, "output_dropout": 0.2}


def test_a_keras_file_gives_the_same_outputs(tmp_path):
    settings = {"num_segments": 3, "activation": "relu", "layer_norm_epsilon": 1e-5}
    model, x = backbone(**settings), inputs()
    assert {name: model.get_config()[name] for name in settings} == settings
    model.save(tmp_path / "lstm.keras")
    again = keras.models.load_model(tmp_path / "lstm.keras")
    assert again.get_config() == model.get_config()
    for name, y in model(x).items():
        np.testing.assert_array_equal(again(x)[name], y)


def test_mixed_precision_comes_close():
    full, mixed = backbone(), backbone(dtype="mixed_bfloat16")
    x = inputs(lengths=(8, 8))
    for name, y in mixed(x).items():
        np.testing.assert_allclose(tf.cast(y, tf.float32), full(x)[name], atol=0.05)
    assert {weight.dtype for weight in mixed.weights} == {"float32"}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, got 0"),
        ({"hidden_dim": 15}, "hidden_dim must be even, half of it for each .*, got 15"),
    ],
)
def test_a_size_that_no_model_has_is_refused(sizes, words):
    with pytest.raises(UserError, match=words):
        LSTMEncoderBackbone(**(SIZES | sizes))


@pytest.fixture(params=TASKS)
def case(request):
    return TASKS[request.param]


@pytest.fixture
def new_task(case, pieces):
    def make(**settings):
        keras.utils.set_random_seed(0)
        sizes = SIZES | {"vocabulary_size": pieces.vocabulary_size()} | settings
        preprocessor = EncoderPreprocessor(pieces, 24)
        return case[0](LSTMEncoderBackbone(**sizes), preprocessor, **case[1])

    return make


def batches(case, size):
    *_, data, _, _ = case
    data = data if len(data) > 1 else data[0]
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def answers(function, asked):
    found = function(*[tf.constant(x) for x in asked])
    return {key: tensor.numpy() for key, tensor in found.items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, values in expected.items():
        if values.dtype == object:
            assert found[key].tolist() == values.tolist()
        else:
            np.testing.assert_allclose(found[key], values, atol=1e-5)


def test_every_task_trains_and_its_preset_and_its_export_answer_alike(case, new_task, tmp_path):
    kind, *_, name, asked = case
    model = new_task()
    before = [weight.numpy() for weight in model.backbone.lstm.weights]
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(batches(case, 4).repeat(2), verbose=0)
    for weight, old in zip(model.backbone.lstm.weights, before, strict=True):
        assert np.abs(weight - old).max() > 1e-7, weight.path
    expected = answers(model.text_functions()[name], asked)

    folder = str(tmp_path / "preset")
    model.save_to_preset(folder)
    of_kerashub = kind if kind is SpanQA else getattr(keras_hub.models, kind.__name__)
    for load in (kind.from_preset, tfllm.models.from_preset, of_kerashub.from_preset):
        again = load(folder)
        assert (type(again), type(again.backbone)) == (kind, LSTMEncoderBackbone)
        for ours, theirs in zip(again.weights, model.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    functions = build(again.text())  # so the tokenizer was kept too
    module = tf.Module()
    module.weights = [variable.value for variable in again.variables]
    tf.saved_model.save(module, str(tmp_path / "export"), signatures={name: functions[name]})
    served = tf.saved_model.load(str(tmp_path / "export")).signatures[name]
    fields = [field.name for field in again.text().signatures[name].inputs]
    assert_same(answers(lambda *x: served(**dict(zip(fields, x, strict=True))), asked), expected)


def test_a_pretrained_model_becomes_a_classifier(pieces, tmp_path):
    sizes = SIZES | {"vocabulary_size": pieces.vocabulary_size()}
    pretrained = MaskedLM(LSTMEncoderBackbone(**sizes), EncoderPreprocessor(pieces, 24))
    pretrained.save_to_preset(tmp_path / "preset")
    model = TextClassifier.from_preset(tmp_path / "preset", labels=["a", "b"])
    for ours, theirs in zip(model.backbone.weights, pretrained.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.classify("good film").label in ("a", "b")


def test_a_task_s_kind_of_backbone_is_one_of_two():
    assert TextClassifier.backbone_cls == LSTMEncoderBackbone
    assert TextClassifier.backbone_cls == BertBackbone
    assert TextClassifier.backbone_cls != keras_hub.models.BertBackbone
    assert len({TextClassifier.backbone_cls, MaskedLM.backbone_cls}) == 1
    assert TextClassifier.backbone_cls.__name__ == "BertBackbone or LSTMEncoderBackbone"
