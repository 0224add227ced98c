"""What tokens add to a classifier's answer, and where heads look."""

import html
import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers import TokenEmbedding
from tfllm.models import TextClassifier
from tfllm.reports import attribute, attribution
from tfllm.reports.attribution import gradient_times_input, page, whole_words

TEXT = "she is a very good singer, she is not bad"


class BagBackbone(keras_hub.models.Backbone):
    """The mean of the token embeddings: nothing in it is not linear."""

    def __init__(self, vocabulary_size, hidden_dim, max_sequence_length=32):
        self.token_embedding = TokenEmbedding(vocabulary_size, hidden_dim, name="token_embedding")
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        hidden = self.token_embedding(inputs["token_ids"])
        pooled = keras.layers.GlobalAveragePooling1D()(hidden)
        super().__init__(
            inputs=inputs, outputs={"sequence_output": hidden, "pooled_output": pooled}
        )
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.max_sequence_length = max_sequence_length
        self.has_pooler = True


def logits_of(model, texts):
    return model(model.preprocessor.call(texts), training=False)[0].numpy()


def test_of_a_linear_model_the_contributions_sum_to_the_logit_less_its_bias(read_by):
    model = read_by(TextClassifier, BagBackbone(28, 8), labels=["bad", "good"])
    model.head.bias.assign([0.25, -0.5])
    for label, bias in (("bad", 0.25), ("good", -0.5)):
        found = attribute(model, TEXT, label=label)
        assert sum(found.contributions) == pytest.approx(found.logit - bias, abs=1e-5)
        # Each token adds its embedding's own score.
        table = model.backbone.token_embedding.embeddings.numpy()
        ids = [model.preprocessor.tokenizer.token_to_id(token) for token in found.tokens]
        scores = table[ids] @ model.head.kernel.numpy()[:, model.labels.index(label)]
        np.testing.assert_allclose(found.contributions, scores / len(ids), atol=1e-6)


def test_the_logit_is_the_models_and_the_best_label_is_chosen(classifier):
    found = attribute(classifier, TEXT, "the film")
    logits = logits_of(classifier, ([TEXT], ["the film"]))
    assert found.label == classifier.labels[int(np.argmax(logits))]
    assert found.logit == pytest.approx(logits.max(), abs=1e-5)
    assert " ".join(found.tokens) == (
        "[CLS] she is a very good sing ##er , she is not bad [SEP] the film [SEP]"
    )


def test_a_contribution_is_the_slope_of_the_logit_when_an_embedding_grows(classifier):
    found = attribute(classifier, TEXT, label="glad")
    table = classifier.backbone.token_embedding.embeddings
    before = table.numpy()
    for token in ("good", "she"):  # "she" stands there twice
        row = classifier.preprocessor.tokenizer.token_to_id(token)
        logits = []
        for step in (-0.01, 0.01):
            changed = before.copy()
            changed[row] *= 1 + step
            table.assign(changed)
            logits.append(logits_of(classifier, [TEXT])[1])
        table.assign(before)
        both = sum(
            value
            for name, value in zip(found.tokens, found.contributions, strict=True)
            if name == token
        )
        assert both == pytest.approx((logits[1] - logits[0]) / 0.02, rel=0.02, abs=2e-4)
    assert len(set(found.contributions)) == len(found.contributions)


def test_pieces_are_put_together_and_their_contributions_summed(classifier):
    assert whole_words(["[CLS]", "sing", "##er", "##s", "is"], [0, 1, 2, 4, 8]) == (
        ["[CLS]", "singers", "is"],
        [0, 7, 8],
    )
    found = attribute(classifier, TEXT)
    assert "singer" in found.words
    assert sum(found.word_contributions) == pytest.approx(sum(found.contributions))


def test_the_page_shows_the_words_as_text(classifier):
    found = attribute(classifier, "good ! bad")._replace(words=["<b>", "&", "x", "y", "z"])
    shown = page([found._replace(word_contributions=[1.0, -2.0, 0.0, 0.0, 0.0])])
    assert html.escape("<b>") in shown
    assert "<b>," not in shown
    assert 'title="1" style="background:rgba(60,110,255,0.50)"' in shown
    assert 'title="-2" style="background:rgba(255,80,60,1.00)"' in shown
    nothing = page([found._replace(word_contributions=[0.0] * 5)])
    assert "0.00" in nothing


@pytest.mark.parametrize("classifier", ["bert"], indirect=True)
def test_the_command_writes_table_and_page(classifier, run, tmp_path):
    classifier.save_to_preset(str(tmp_path / "preset"))
    out = tmp_path / "out"
    code, found, err = run(
        "report", "attribution", tmp_path / "preset", "--text", TEXT, "--text", "a film",
        "--label", "glad", "--out", out,
    )  # fmt: skip
    assert code == 0
    assert [each["label"] for each in found["texts"]] == ["glad", "glad"]
    assert found["texts"][0]["sum"] == pytest.approx(sum(found["texts"][0]["contributions"]))
    assert "singer" in err
    assert found["does_not_show"][0] in err
    assert "singer</span>" in (out / "attribution.html").read_text()
    assert json.loads((out / "report.json").read_text())["report"] == "attribution"


def test_what_cannot_be_attributed_is_said(classifier, gpt):
    for arguments, options, words in [
        ((classifier, []), {}, "got 0 and 0"),
        ((classifier, ["a"], ["b", "c"]), {}, "got 1 and 2"),
        ((classifier, ["a"]), {"label": "happy"}, "one of sad, glad, neither, got 'happy'"),
        ((gpt, ["a"]), {}, "preset of a TextClassifier, got a GPTCausalLM"),
        ((classifier, ["x" * 99_999]), {}, "The model refused 'xxx"),
    ]:
        with pytest.raises(UserError, match=words):
            attribution(*arguments, **options)
    inputs = {"token_ids": tf.zeros([1, 28], tf.int32)}
    with pytest.raises(UserError, match="28 tokens, more than the 27 of the vocabulary"):
        gradient_times_input(classifier, inputs)
