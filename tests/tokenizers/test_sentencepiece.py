"""SentencePiece: exact round trips, one answer from both faces, foreign models as they are."""

import io
import random
import subprocess
import sys
import threading

import pytest
import sentencepiece
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import SentencePieceTokenizer

HARD_TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n\r\n\r a\tb\t\tc \n",
    "def f(x):\n    if x:\n\t\treturn 1\n",
    "长江流入东海。",
    "👩‍👩‍👧 👍🏽",
    "\x00 nul \x00\x00",
    "\u2581a\u2581 \u2581\u2581",
    "\u2585\ufffd\ufeff\u0085\u00a0\u3000",
    "\ufffe\uffff\U0001ffff\U0010ffff\ufdd0",
    "e\u0301 \u00e9 \ufb01 \u2460",
    "<s></s><pad><unk><0x0A><0x41>",
    "1234567890 ----- ......",
]


def random_texts(count):
    draw = random.Random(0)
    alphabet = "".join(HARD_TEXTS) + " \n" * 8
    for _ in range(count):
        yield "".join(draw.choices(alphabet, k=draw.randrange(30)))


def random_ids(tokenizer, count):
    draw = random.Random(0)
    for _ in range(count):
        yield draw.choices(range(-3, tokenizer.vocabulary_size() + 3), k=draw.randrange(20))


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_every_text_comes_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_graph_gives_the_ids_and_the_texts_of_python(tokenizer):
    texts = list(random_texts(500))

    @tf.function
    def both(strings):
        token_ids = tokenizer.tokenize(strings)
        return token_ids, tokenizer.detokenize(token_ids)

    token_ids, back = both(tf.constant(texts))

    assert token_ids.to_list() == tokenizer.encode_batch(texts)
    assert token_ids.to_list() == [tokenizer.encode(text) for text in texts]
    assert [text.decode() for text in back.numpy()] == texts


def test_text_never_gives_a_special_id(tokenizer):
    used = {i for ids in tokenizer.encode_batch(HARD_TEXTS) for i in ids}

    assert not used & {tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id}


def test_the_written_name_of_a_byte_piece_is_not_that_byte(tokenizer):
    newline = tokenizer.token_to_id("<0x0A>")

    assert tokenizer.token_bytes()[newline] == b"\n"
    assert newline not in tokenizer.encode("<0x0A>")


def test_any_ids_give_the_same_valid_text_in_both_faces(tokenizer):
    rows = list(random_ids(tokenizer, 2000))
    texts = [tokenizer.decode(row) for row in rows]

    ragged = tokenizer.detokenize(tf.ragged.constant(rows, tf.int32)).numpy()
    padded = tokenizer.detokenize(tf.ragged.constant(rows, tf.int64).to_tensor(-1)).numpy()

    assert any("\ufffd" in text for text in texts)  # incomplete UTF-8 was among them
    assert [text.decode() for text in ragged] == texts
    assert [text.decode() for text in padded] == texts


def test_special_and_impossible_ids_add_nothing(tokenizer):
    token_ids = [tokenizer.bos_id, *tokenizer.encode("x y"), tokenizer.eos_id, tokenizer.pad_id]

    assert tokenizer.decode([-1, *token_ids, 10**6]) == "x y"
    assert tokenizer.detokenize([-1, *token_ids, 10**6]).numpy() == b"x y"


def test_the_unknown_piece_is_a_replacement_character(tokenizer):
    assert tokenizer.decode([tokenizer.unk_id]) == "\ufffd"


def test_the_bytes_of_the_tokens_joined_and_finished_are_the_text(tokenizer):
    text = HARD_TEXTS[6]
    raw = b"".join(tokenizer.token_bytes()[i] for i in tokenizer.encode(text))

    assert tokenizer.finish_bytes(raw) == text
    assert tokenizer.finish_text(tf.constant([raw, raw[:2]])).numpy().tolist() == [
        text.encode(),
        "\ufffd".encode(),
    ]


def test_invalid_bytes_and_surrogates_are_read_as_replacement_characters(tokenizer):
    strings = [b"a\xff\xe4\xbdb", b"\xf0\x9f\x91", b"ok"]
    texts = [string.decode("utf-8", "replace") for string in strings]

    assert tokenizer.encode_batch(strings) == tokenizer.encode_batch(texts)
    assert tokenizer.tokenize(tf.constant(strings)).to_list() == tokenizer.encode_batch(texts)
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")


def test_no_rows_and_a_scalar(tokenizer):
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.tokenize(tf.constant([], tf.string)).to_list() == []
    assert tokenizer.detokenize(tf.zeros([0, 3], tf.int32)).numpy().tolist() == []
    assert tokenizer.detokenize(tf.zeros([2, 0], tf.int32)).numpy().tolist() == [b"", b""]
    assert tokenizer.detokenize([]).numpy() == b""
    assert tokenizer.tokenize("x y").numpy().tolist() == tokenizer.encode("x y")


def test_setting_the_seed_does_not_lose_the_model(tokenizer):
    graph = tf.function(tokenizer.tokenize)
    before = graph(tf.constant(["x y"])).to_list()

    tf.random.set_seed(1)  # clears the kernels that hold eager resources

    assert graph(tf.constant(["x y"])).to_list() == before == [tokenizer.encode("x y")]


def test_encoding_works_while_a_graph_is_traced(tokenizer):
    @tf.function
    def constant_ids():
        return tf.constant(tokenizer.encode("x y"))

    assert constant_ids().numpy().tolist() == tokenizer.encode("x y")


def test_threads_get_the_answers_of_one(tokenizer):
    texts = list(random_texts(100))
    expected = tokenizer.encode_batch(texts)
    fresh = SentencePieceTokenizer(proto=tokenizer.proto)  # the threads race to its first use
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append([fresh.encode(text) for text in texts]))
        for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [expected] * 4


def test_it_maps_over_a_dataset(tokenizer):
    dataset = tf.data.Dataset.from_tensor_slices(HARD_TEXTS).batch(5).map(tokenizer)

    rows = [row for batch in dataset for row in batch.to_list()]

    assert rows == tokenizer.encode_batch(HARD_TEXTS)


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
        print(answer["token_ids"].tolist(), [x.hex() for x in answer["text"].tolist()])
assert not {"tfllm", "keras_hub", "sentencepiece"} & set(sys.modules)
"""


@pytest.mark.parametrize("tokenizer", ["unigram"], indirect=True)
def test_a_saved_model_tokenizes_where_this_package_is_not(tokenizer, tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(text):
        token_ids = tokenizer.tokenize(text).to_tensor(-1)
        return {"token_ids": token_ids, "text": tokenizer.detokenize(token_ids)}

    module.serve = serve
    tf.saved_model.save(module, tmp_path, signatures=serve)
    texts = [text.encode().hex() for text in HARD_TEXTS]

    output = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path, *texts],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()

    token_ids = tokenizer.tokenize(HARD_TEXTS).to_tensor(-1).numpy().tolist()
    assert output == [f"{token_ids} {texts}", "[] []"]


def test_a_row_of_rows_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"takes a string or string\[b\]; got shape \(1, 1\)"):
        tokenizer.tokenize([["a"]])


def test_an_id_outside_the_vocabulary_has_no_token(tokenizer):
    assert tokenizer.id_to_token(2) == "<s>"
    for i in (-1, tokenizer.vocabulary_size()):
        with pytest.raises(UserError, match=rf"must be in \[0, \d+\); got {i}"):
            tokenizer.id_to_token(i)


def test_tokens_and_ids_are_each_others_inverse(tokenizer):
    vocabulary = tokenizer.get_vocabulary()

    assert [tokenizer.token_to_id(token) for token in vocabulary] == list(range(len(vocabulary)))
    assert len(vocabulary) == tokenizer.vocabulary_size() == len(tokenizer.token_bytes())
    assert tokenizer.token_to_id("no such piece") == tokenizer.unk_id


# SentencePiece's own defaults (those of T5), and those of Llama and Mistral.
FOREIGN = {
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "llama": {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False},
}


@pytest.fixture(scope="module", params=FOREIGN)
def foreign(request):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "the dog ate the hat"] * 50),
        model_writer=proto,
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
        **FOREIGN[request.param],
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    return SentencePieceTokenizer(proto=proto.getvalue()), processor


def test_a_foreign_model_encodes_and_decodes_as_sentencepiece_does(foreign):
    tokenizer, processor = foreign
    texts = [
        "the cat",
        "  the  cat ",
        "中 the",
        "",
        " ",
        "\u2581the",
        "the\ncat",
        *random_texts(200),
    ]

    token_ids = tokenizer.encode_batch(texts)
    graph_texts = tokenizer.detokenize(tf.ragged.constant(token_ids, tf.int32)).numpy()

    assert token_ids == processor.encode(texts)
    assert [tokenizer.decode(ids) for ids in token_ids] == processor.decode(token_ids)
    assert [text.decode() for text in graph_texts] == processor.decode(token_ids)


def test_a_foreign_model_joins_any_pieces_as_sentencepiece_does(foreign):
    tokenizer, processor = foreign
    draw = random.Random(0)
    whole = [i for i in range(tokenizer.vocabulary_size()) if not processor.is_byte(i)]
    rows = [draw.choices([*whole, tokenizer.token_to_id("\u2581")], k=5) for _ in range(2000)]

    graph_texts = tokenizer.detokenize(rows).numpy()

    assert [tokenizer.decode(row) for row in rows] == processor.decode(rows)
    assert [text.decode() for text in graph_texts] == processor.decode(rows)


def test_a_continuation_by_a_foreign_model_keeps_the_space_it_begins_with(foreign):
    tokenizer, _ = foreign
    table = tokenizer.token_bytes()
    raw = b"".join(table[i] for i in tokenizer.encode("the cat sat"))

    assert raw == b" the cat sat"  # so stop strings are matched with their spaces
    assert tokenizer.finish_bytes(raw) == " the cat sat"
    assert tokenizer.finish_text(tf.constant([raw])).numpy().tolist() == [raw]


def test_bytes_and_the_unknown_piece_keep_their_spaces_at_the_beginning(foreign):
    tokenizer, processor = foreign
    space = tokenizer.token_to_id("<0x20>")
    rows = [[tokenizer.unk_id, *tokenizer.encode("the")], [space, *tokenizer.encode("the")], [-1]]
    texts = [*processor.decode(rows[:2]), ""]

    assert texts[0].startswith(" ")
    assert [tokenizer.decode(row) for row in rows] == texts
    graph_texts = tokenizer.detokenize(tf.ragged.constant(rows, tf.int32)).numpy()
    assert [text.decode() for text in graph_texts] == texts


def test_padding_is_some_token_of_the_vocabulary(foreign, tokenizer):
    assert tokenizer.padding_id == tokenizer.pad_id == 0
    assert foreign[0].padding_id == {-1: foreign[0].eos_id, 0: 0}[foreign[0].pad_id]


def test_a_foreign_model_keeps_its_special_ids(foreign):
    tokenizer, processor = foreign

    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)

    assert ids == (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    assert -1 in ids
