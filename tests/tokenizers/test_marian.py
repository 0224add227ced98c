"""Marian's tokenizer in every place where a tokenizer is used."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import load_tokenizer
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.marian import MarianTokenizer

FIXTURE = Path(__file__).parents[1] / "huggingface" / "fixtures" / "sentencepiece.json"
RECORDED = json.loads(FIXTURE.read_text(encoding="utf-8"))["marian"]
FILES = RECORDED["files"]
VOCABULARY = FILES["vocab.json"]
MODELS = [base64.b64decode(FILES[name]) for name in ("source.spm", "target.spm")]
SPECIAL = [AddedToken(text, VOCABULARY[text]) for text in ("</s>", "<unk>", "<pad>")]
TEXTS = RECORDED["texts"]


@pytest.fixture(scope="module")
def tokenizer():
    return MarianTokenizer(*MODELS, VOCABULARY, added_tokens=SPECIAL)


def test_a_code_at_the_beginning_is_one_token(tokenizer):
    fra = VOCABULARY[">>fra<<"]

    assert tokenizer.encode(">>fra<< the") == [fra, VOCABULARY["\u2581the"]]
    assert tokenizer.encode("</s>>>fra<<")[1:] == [fra]
    assert fra not in tokenizer.encode(" >>fra<< the")
    assert tokenizer.encode(">>no such<<the") == [tokenizer.unk_id, VOCABULARY["\u2581the"]]


def test_a_character_of_the_other_language_has_its_id(tokenizer):
    assert VOCABULARY["\u00e9"] in tokenizer.encode("\u00e9")  # unknown to the source's model
    assert tokenizer.encode("\u00e9\u4e2d")[-1] == tokenizer.unk_id  # one token, and it has none


def test_a_piece_without_an_id_is_unknown(tokenizer):
    assert tokenizer.encode("Q")[-1] == tokenizer.unk_id


def test_it_is_saved_and_loaded_as_it_was(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")

    loaded = load_tokenizer(tmp_path / "tokenizer")

    assert loaded.get_config() == tokenizer.get_config()
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert loaded.encode_target(TEXTS) == tokenizer.encode_target(TEXTS)
    assert loaded.token_bytes() == tokenizer.token_bytes()


def test_separate_vocabularies_are_saved_and_loaded(tmp_path):
    target = {token: id + 7 for token, id in VOCABULARY.items()}
    MarianTokenizer(*MODELS, VOCABULARY, target).save(tmp_path / "tokenizer")

    loaded = load_tokenizer(tmp_path / "tokenizer")

    assert loaded.vocabularies == (VOCABULARY, target)
    assert loaded.encode_target(["the"])[0][-1] > max(VOCABULARY.values()) - 100
    assert loaded.vocabulary_size() == loaded.source_vocabulary_size() + 7


def test_the_vocabulary_is_that_of_translations(tokenizer):
    vocabulary = tokenizer.get_vocabulary()

    assert vocabulary[tokenizer.token_to_id("\u2581le")] == "\u2581le"
    assert len(vocabulary) == tokenizer.vocabulary_size() == len(tokenizer.token_bytes())
    assert tokenizer.id_to_token(0) == "</s>"
    assert tokenizer.token_to_id("no such piece") == tokenizer.unk_id


def test_setting_the_seed_loses_nothing(tokenizer):
    graph = tf.function(tokenizer.tokenize)
    before = graph(tf.constant(TEXTS)).to_list()

    tf.random.set_seed(1)

    assert graph(tf.constant(TEXTS)).to_list() == before == tokenizer.encode_batch(TEXTS)


def test_it_maps_over_a_dataset(tokenizer):
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(50)

    source = [row for batch in dataset.map(tokenizer) for row in batch.to_list()]
    target = [r for batch in dataset.map(tokenizer.tokenize_target) for r in batch.to_list()]

    assert source == RECORDED["ids"]
    assert target == RECORDED["target_ids"]


SERVE = """
import sys
import tensorflow as tf
import tensorflow_text

with tf.compat.v1.Session(graph=tf.Graph()) as session:
    signature = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1]).signature_def
    name = signature["serving_default"].inputs["text"].name
    outputs = {k: v.name for k, v in signature["serving_default"].outputs.items()}
    for rows in ([bytes.fromhex(x) for x in sys.argv[2:]], []):
        answer = session.run(outputs, {name: rows})
        print(answer["source"].tolist(), answer["target"].tolist(), answer["text"].tolist())
assert not {"tfllm", "keras_hub", "sentencepiece"} & set(sys.modules)
"""


def test_a_saved_model_tokenizes_where_this_package_is_not(tokenizer, tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(text):
        target = tokenizer.tokenize_target(text).to_tensor(-1)
        source = tokenizer.tokenize(text).to_tensor(-1)
        return {"source": source, "target": target, "text": tokenizer.detokenize(target)}

    module.serve = serve
    tf.saved_model.save(module, tmp_path, signatures=serve)
    texts = [text.encode().hex() for text in TEXTS]

    output = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path, *texts], check=True, capture_output=True, text=True
    ).stdout.splitlines()

    here = [
        serve(tf.constant(TEXTS))[name].numpy().tolist() for name in ("source", "target", "text")
    ]
    assert output == [" ".join(map(str, here)), "[] [] []"]


def test_a_vocabulary_without_the_unknown_token_is_refused():
    with pytest.raises(UserError, match="The vocabulary must hold <unk>"):
        MarianTokenizer(*MODELS, {"a": 0})


def test_a_tokenizer_without_its_vocabulary_says_so():
    with pytest.raises(UserError, match="has no vocabulary yet: give `source`, `target` and"):
        MarianTokenizer().encode("x")


def test_an_id_outside_the_vocabulary_has_no_token(tokenizer):
    with pytest.raises(UserError, match=r"must be in \[0, \d+\); got -1"):
        tokenizer.id_to_token(-1)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "Cannot read the vocabulary"), ("{", "is not a vocabulary")]
)
def test_a_saved_vocabulary_that_is_damaged_is_named(tokenizer, tmp_path, content, words):
    tokenizer.save_assets(tmp_path)
    path = tmp_path / "vocabulary.json"
    path.unlink() if content is None else path.write_text(content)

    with pytest.raises(UserError, match=words):
        MarianTokenizer().load_assets(tmp_path)
