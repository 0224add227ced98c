"""SentencePiece's tokenizers beside SentencePiece itself and transformers: 20,000 lines each."""

import json
import pydoc_data.topics
import random
import unicodedata
from pathlib import Path

import pytest
import tensorflow as tf

transformers = pytest.importorskip("transformers")

import make_sentencepiece  # noqa: E402
import sentencepiece  # noqa: E402
from prompts import prompts  # noqa: E402

from tfllm.huggingface.sentencepiece_files import (  # noqa: E402
    read_llama,
    read_marian,
    read_t5,
    write_marian,
    write_t5,
)
from tfllm.tokenizers import SentencePieceTokenizer  # noqa: E402

FIXTURE = Path(__file__).parents[1] / "huggingface" / "fixtures" / "sentencepiece.json"
REAL = [*"\n".join(pydoc_data.topics.topics.values()).splitlines(), *prompts()]
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "vocab_size": 4000}
SETTINGS = {
    "t5": T5,
    "mt5": {**T5, "byte_fallback": True},
    "bpe": {**T5, "model_type": "bpe"},
    "llama": {
        "vocab_size": 4000,
        "model_type": "bpe",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    },
}
# transformers takes U+0085 for white space, and a grapheme that follows some for one character.
UNLIKE = ("\x85", "\r", "\n", "\t", "\u2028", "\u2029")


def generated(count, seed=0):
    """Lines of every general category, white space, control characters, runs."""
    draw = random.Random(seed)
    categories = {}
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            categories.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    white = [chr(code) for code in range(0x3001) if chr(code).isspace()] + ["\u2581", "\u200b"]
    words = " ".join(REAL[:300]).split()
    for _ in range(count):
        parts = []
        for _ in range(draw.randrange(1, 20)):
            match draw.randrange(5):
                case 0:
                    parts.append(draw.choice(draw.choice(list(categories.values()))))
                case 1:
                    parts.append(draw.choice(white) * draw.choice([1, 1, 2, 5]))
                case 2:
                    parts.append(draw.choice("-=.*_#01ae ") * int(2 ** (draw.random() * 6)))
                case _:
                    parts.append(draw.choice(words) + draw.choice(["", " "]))
        yield "".join(parts)


LINES = [*REAL, *generated(20_000 - len(REAL) if len(REAL) < 19_000 else 1000)]


def train(path, **settings):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(REAL),
        model_prefix=str(path.with_suffix("")),
        minloglevel=2,
        **settings,
    )
    written = path.with_suffix(".model")
    return written.rename(path)


def encoded(encode, texts):
    return [
        ids for start in range(0, len(texts), 2000) for ids in encode(texts[start : start + 2000])
    ]


def differing(found, expected):
    return [i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]]


def random_rows(tokenizer, count=3000):
    draw = random.Random(2)
    special = [token.id for token in tokenizer.added_tokens]
    ids = range(tokenizer.vocabulary_size())
    for _ in range(count):
        row = draw.choices(ids, k=draw.randrange(12))
        yield [draw.choice(special) if draw.random() < 0.2 else i for i in row]


def assert_decodes_as(tokenizer, theirs):
    rows = list(random_rows(tokenizer))
    expected = [
        theirs.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in rows
    ]
    graph = tokenizer.detokenize(tf.ragged.constant(rows, tf.int32)).numpy()
    assert [tokenizer.decode(row) for row in rows] == expected
    assert [text.decode() for text in graph] == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_ids_and_texts_are_those_of_sentencepiece(name, tmp_path):
    path = train(tmp_path / "a.model", **SETTINGS[name])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = SentencePieceTokenizer(path)
    expected = processor.encode(LINES)

    assert differing(encoded(tokenizer.encode_batch, LINES), expected) == []
    texts = tokenizer.detokenize(tf.ragged.constant(expected, tf.int32)).numpy()
    assert [text.decode() for text in texts] == processor.decode(expected)


@pytest.fixture
def t5(tmp_path):
    train(tmp_path / "spiece.model", **T5)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    return tmp_path


def test_t5_differs_from_transformers_in_ties_and_white_space_only(t5):
    tokenizer, theirs = read_t5(t5), transformers.AutoTokenizer.from_pretrained(t5)
    plain = [text for text in LINES if not any(mark in text for mark in UNLIKE)]
    ids = encoded(tokenizer.encode_batch, plain)

    differ = differing(ids, theirs(plain, add_special_tokens=False).input_ids)

    # Their score is the same, or the text has characters that normalize together.
    print(f"{len(differ)} of {len(plain)} lines are other tokens for transformers")
    assert len(differ) < 0.02 * len(plain)
    assert len(tokenizer.get_vocabulary()) == len(theirs)
    assert_decodes_as(tokenizer, theirs)


def test_t5_recognises_special_tokens_as_transformers_does(t5):
    tokenizer, theirs = read_t5(t5), transformers.AutoTokenizer.from_pretrained(t5)
    draw = random.Random(3)
    parts = [
        "</s>",
        "<pad>",
        "<unk>",
        "<extra_id_0>",
        "<extra_id_10>",
        "<extra_id_1",
        " ",
        "a",
        "the",
    ]
    texts = ["".join(draw.choices(parts, k=draw.randrange(9))) for _ in range(3000)]

    assert tokenizer.encode_batch(texts) == theirs(texts, add_special_tokens=False).input_ids


def test_t5_of_the_one_file_that_transformers_saves_is_t5(t5, tmp_path):
    transformers.AutoTokenizer.from_pretrained(t5).save_pretrained(tmp_path / "saved")
    tokenizer, again = read_t5(t5), read_t5(tmp_path / "saved")

    assert again.added_tokens == tokenizer.added_tokens
    assert encoded(again.encode_batch, LINES) == encoded(tokenizer.encode_batch, LINES)


@pytest.fixture(params=["shared", "separate"])
def marian(request, tmp_path):
    settings = {"vocab_size": 2000, "pad_id": -1, "bos_id": -1, "eos_id": 0, "unk_id": 1}
    for name, lines in (("source", REAL[::2]), ("target", REAL[1::3])):
        model = sentencepiece.SentencePieceTrainer
        model.train(
            sentence_iterator=iter(lines),
            model_prefix=str(tmp_path / name),
            minloglevel=2,
            **settings,
        )
        (tmp_path / f"{name}.model").rename(tmp_path / f"{name}.spm")
    pieces = [
        [processor.id_to_piece(i) for i in range(2000)]
        for processor in (
            sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / f"{name}.spm"))
            for name in ("source", "target")
        )
    ]
    files = {"vocab": pieces[0] + pieces[1] + [">>fra<<"]}
    if request.param == "separate":
        files = {"vocab": pieces[0], "target_vocab": pieces[1]}
    for name, strings in files.items():
        strings = [*dict.fromkeys(["</s>", "<unk>", *strings, "<pad>"])]
        ids = {string: id for id, string in enumerate(strings)}
        (tmp_path / f"{name}.json").write_text(json.dumps(ids))
    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    config = {"separate_vocabs": request.param == "separate"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_marian_is_the_tokenizer_of_transformers(marian):
    tokenizer, theirs = read_marian(marian), transformers.AutoTokenizer.from_pretrained(marian)
    texts = [*LINES, *(f">>fra<<{text}</s>>>fra<< {text}" for text in LINES[:500])]

    source = theirs(texts, add_special_tokens=False).input_ids
    target = theirs(text_target=texts, add_special_tokens=False).input_ids

    assert differing(encoded(tokenizer.encode_batch, texts), source) == []
    assert differing(encoded(tokenizer.encode_target, texts), target) == []
    assert_decodes_as(tokenizer, theirs)


def test_llama_is_the_tokenizer_of_transformers(tmp_path):
    model = train(tmp_path / "tokenizer.model", **SETTINGS["llama"])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    scores = {piece: processor.get_score(i) for i, piece in enumerate(pieces)}
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    # From a model file alone transformers takes the pieces in the order of their ids, not scores.
    merges = transformers.convert_slow_tokenizer.generate_merges(vocabulary, scores)
    theirs = transformers.LlamaTokenizer(vocab=vocabulary, merges=merges)
    theirs.save_pretrained(tmp_path)
    tokenizer = read_llama(tmp_path)
    texts = [*LINES, *(f"<s>{text}</s>{text}<unk>" for text in LINES[:500])]

    expected = theirs(texts, add_special_tokens=False).input_ids

    assert differing(encoded(tokenizer.encode_batch, texts), expected) == []
    decoded = theirs.batch_decode(expected[:5000], skip_special_tokens=True)
    assert [tokenizer.decode(ids) for ids in expected[:5000]] == decoded


@pytest.mark.parametrize("write", [write_t5, write_marian])
def test_what_is_written_is_the_same_tokenizer_to_transformers(write, tmp_path):
    name = {write_t5: "t5", write_marian: "marian"}[write]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir(), after.mkdir()
    make_sentencepiece.write_folder(make_sentencepiece.folders()[name], before)
    read = {write_t5: read_t5, write_marian: read_marian}[write]

    write(read(before), after)

    (after / "config.json").write_text((before / "config.json").read_text())
    theirs, again = (transformers.AutoTokenizer.from_pretrained(f) for f in (before, after))
    texts = make_sentencepiece.texts(name)
    assert type(again) is type(theirs)
    assert again.get_vocab() == theirs.get_vocab()
    assert again.added_tokens_decoder == theirs.added_tokens_decoder
    assert again(texts).input_ids == theirs(texts).input_ids


def test_the_recorded_answers_are_those_of_now():
    recorded = json.loads(FIXTURE.read_text(encoding="utf-8"))
    live = make_sentencepiece.cases()
    for case in (*recorded.values(), *live.values()):
        case.pop("files")  # the bytes of a model may be laid out otherwise

    assert live == recorded
