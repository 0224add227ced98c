"""Byte-level BPE beside `tokenizers` and `transformers`, live, over every code point and more.

The vocabulary of GPT-2 is used where TFLLM_GPT2_TOKENIZER names a folder with its vocab.json and
merges.txt, and the lines of texts where TFLLM_TEXTS names a folder of them.
"""

import json
import os
import random
from pathlib import Path

import pytest

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

import make_byte_pair as make  # noqa: E402
import tensorflow as tf  # noqa: E402
from tokenizers import Regex, normalizers, pre_tokenizers  # noqa: E402

from tfllm.huggingface.byte_pair_files import read_byte_pair, write_byte_pair  # noqa: E402
from tfllm.tokenizers import characters, composition  # noqa: E402
from tfllm.tokenizers.byte_alphabet import spelled  # noqa: E402
from tfllm.tokenizers.byte_pair import BytePairTokenizer  # noqa: E402
from tfllm.tokenizers.byte_pair_training import train_byte_pair  # noqa: E402
from tfllm.tokenizers.pieces import cut  # noqa: E402
from tfllm.tokenizers.splitting import PATTERNS  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "tokenizers" / "fixtures"


def texts():
    folder = os.environ.get("TFLLM_TEXTS")
    found = make.prose()
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.suffix in (".txt", ".tsv", ".jsonl"):
            found += path.read_text(encoding="utf-8").split("\n")
    return found


def trained(split, **settings):
    corpus = [*make.prose()[:4000], *make.unicode_lines(2000, seed=3)]
    reference = make.trained(corpus, 2000, split)
    return BytePairTokenizer(
        reference.get_vocab(), make.merges_of(reference), split=split, **settings
    )


def assert_same_ids(tokenizer, lines):
    reference = make.reference(tokenizer)
    for start in range(0, len(lines), 2000):
        batch = lines[start : start + 2000]
        expected = [encoding.ids for encoding in reference.encode_batch(batch)]
        for line, ids, wanted in zip(batch, tokenizer.encode_batch(batch), expected, strict=True):
            assert ids == wanted, ascii(line)


def test_the_recorded_references_are_those_of_now():
    recorded = json.loads((FIXTURES / make.FILE).read_text())

    for split, found in recorded["splits"].items():
        reference = make.trained(recorded["corpus"], make.VOCABULARY_SIZE, split)
        assert make.merges_of(reference) == found["merges"]
        assert [reference.encode(text).ids for text in recorded["texts"]] == found["ids"]


def test_the_vocabulary_of_gpt2_gives_the_same_ids():
    folder = os.environ.get("TFLLM_GPT2_TOKENIZER")
    if not folder:
        pytest.skip("TFLLM_GPT2_TOKENIZER names no folder")
    tokenizer = read_byte_pair(folder)

    assert_same_ids(tokenizer, [*texts(), *make.unicode_lines(20_000, seed=1)])


@pytest.mark.parametrize("split", PATTERNS)
@pytest.mark.parametrize("composes", [False, True])
def test_every_pattern_gives_the_same_ids(split, composes):
    tokenizer = trained(split, composes=composes)

    assert_same_ids(tokenizer, [*texts()[::2], *make.unicode_lines(20_000, seed=2)])


def test_a_prefix_space_gives_the_same_ids():
    assert_same_ids(trained("gpt2", add_prefix_space=True), make.unicode_lines(5000, seed=4))


def test_whole_tokens_give_the_same_ids():
    full = trained("llama3")
    draw = random.Random(0)
    merges = [pair for pair in full.merges if draw.random() < 0.8]
    tokenizer = BytePairTokenizer(full.vocabulary, merges, split="llama3", ignore_merges=True)

    assert_same_ids(tokenizer, [*texts()[::4], *make.unicode_lines(5000, seed=5)])


@pytest.mark.parametrize("order", ["every way to cut a token", "any"])
def test_merges_in_an_order_that_no_training_gives_give_the_same_ids(order):
    full = trained("gpt2")
    known = full.vocabulary
    if order == "any":
        merges = random.Random(0).sample(full.merges, len(full.merges))
    else:
        cuts = ((token, at) for token in known for at in range(1, len(token)))
        merges = [(t[:at], t[at:]) for t, at in cuts if t[:at] in known and t[at:] in known]

    assert_same_ids(
        BytePairTokenizer(known, merges), [*texts()[::8], *make.unicode_lines(3000, seed=6)]
    )


def test_every_code_point_has_the_kind_that_the_reference_gives_it():
    line = "".join(map(chr, make.CODE_POINTS))
    kinds = characters.kinds_of(tf.constant(make.CODE_POINTS)).numpy()
    found = {
        r"\p{L}": kinds == characters.LETTER,
        r"\p{N}": kinds == characters.NUMBER,
        r"\s": kinds >= characters.WHITE,
    }

    for pattern, matches in found.items():
        cut = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
        expected = "".join(piece for piece, _ in cut.pre_tokenize_str(line))
        assert expected == "".join(c for c, match in zip(line, matches, strict=True) if match)


@pytest.mark.parametrize("split", PATTERNS)
def test_every_code_point_is_cut_as_the_reference_does(split):
    reference = make.reference(BytePairTokenizer({}, [], split=split)).pre_tokenizer
    context = "a%sb %s1 %s'%s!%s\n%s  %s"
    lines = [context.replace("%s", chr(code_point)) for code_point in make.CODE_POINTS]

    for start in range(0, len(lines), 20_000):
        batch = lines[start : start + 20_000]
        expected = [[piece for piece, _ in reference.pre_tokenize_str(line)] for line in batch]
        assert pieces(batch, split) == expected


def pieces(batch, split):
    found = cut(tf.constant([line.encode() for line in batch]), split)
    rows = [[] for _ in batch]
    for row, piece in zip(found.rows.numpy(), found.strings().numpy(), strict=True):
        rows[row].append(spelled(piece))
    return rows


def test_every_mark_is_composed_as_the_reference_does():
    reference = normalizers.NFC()
    contexts = [
        "%s",
        "a%s\u0316",
        "a\u0345%s",
        "a\u0334%s\u0334",
        "a\u0316%s\u0334",
        "\u1100%s\u11a8",
    ]
    draw = random.Random(0)
    pool = [*map(chr, sorted(INERT)), *"ae\u0307\u0300\u0345\u0316\u0334\u1100\u1161"]
    lines = [context.replace("%s", chr(c)) for context in contexts for c in make.CODE_POINTS]
    lines += ["".join(draw.choices(pool, k=draw.randint(2, 6))) for _ in range(50_000)]

    for start in range(0, len(lines), 50_000):
        batch = lines[start : start + 50_000]
        found = composition.composed(tf.constant([line.encode() for line in batch])).numpy()
        assert [line.decode() for line in found] == list(map(reference.normalize_str, batch))


INERT = {
    code_point
    for inert in composition._INERT.split()
    for low, _, high in [inert.partition("-")]
    for code_point in range(int(low, 16), int(high or low, 16) + 1)
}


@pytest.mark.parametrize("split", PATTERNS)
def test_training_learns_what_the_trainer_of_the_reference_learns(split):
    corpus = [*make.prose(), *make.unicode_lines(3000, seed=7), "长江 黄河 你好世界。\n" * 50]

    found = train_byte_pair(corpus, vocabulary_size=3000, split=split, composes=split == "qwen2")

    reference = make.trained(corpus, 3000, split)
    assert found.merges == list(map(tuple, make.merges_of(reference)))
    assert found.vocabulary == reference.get_vocab()


CLASSES = {
    "GPT2Tokenizer": {},
    "GPT2TokenizerFast": {"add_prefix_space": True, "pad_token": "<pad>", "unk_token": None},
    "Qwen2Tokenizer": {"extra_special_tokens": ["<|im_start|>"]},
    "RobertaTokenizer": {
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}
    },
}


@pytest.fixture(params=["GPT2Tokenizer with a beginning", *CLASSES])
def folder(request, tmp_path):
    trained("gpt2").save_assets(tmp_path)
    name = request.param.removesuffix(" with a beginning")
    config = {"tokenizer_class": name, **CLASSES[name]}
    if name != request.param:
        config["add_bos_token"] = True
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def assert_same_as_transformers(folder):
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = read_byte_pair(folder)
    assert tokenizer.vocabulary_size() == len(reference)
    for name in ("bos", "eos", "pad", "unk"):
        expected = getattr(reference, f"{name}_token_id")
        assert getattr(tokenizer, f"{name}_id") == (-1 if expected is None else expected)
    special = ["<|endoftext|>", "<pad>", "<mask>", " <mask> ", "</s>", "<|im_start|>", "  ", "\n"]
    draw = random.Random(0)
    for line in make.unicode_lines(300, seed=8):
        text = draw.choice(special) + line + draw.choice(special) + "x"
        begin = [tokenizer.bos_id] if tokenizer.begins_with_bos else []
        expected = reference(text).input_ids
        if isinstance(reference, transformers.RobertaTokenizer):
            expected = expected[:-1]  # the end of a text is the model's affair
        assert begin + tokenizer.encode(text) == expected, ascii(text)
    for _ in range(300):
        ids = [draw.randrange(len(reference)) for _ in range(draw.randint(0, 9))]
        expected = reference.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert tokenizer.decode(ids) == expected
        assert tokenizer.detokenize([ids or [-1]]).numpy()[0].decode() == expected


def test_folders_of_transformers_are_read_as_transformers_reads_them(folder, tmp_path):
    assert_same_as_transformers(folder)

    again = tmp_path / "again"
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(again)
    assert_same_as_transformers(again)


def test_transformers_reads_what_is_written(folder, tmp_path):
    (tmp_path / "ours").mkdir()

    write_byte_pair(read_byte_pair(folder), tmp_path / "ours")

    assert_same_as_transformers(tmp_path / "ours")


@pytest.mark.parametrize("split", PATTERNS)
def test_transformers_reads_what_was_trained(split, tmp_path):
    tokenizer = train_byte_pair(
        make.prose()[:500], vocabulary_size=400, split=split, composes=split == "qwen2"
    )

    write_byte_pair(tokenizer, tmp_path)

    assert_same_as_transformers(tmp_path)
