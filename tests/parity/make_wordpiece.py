"""What Hugging Face `tokenizers` makes of hard texts: `python THIS tests/tokenizers/fixtures`."""

import hashlib
import itertools
import json
import random
import re
import sys
import unicodedata
from pathlib import Path

import tokenizers

FILE = "wordpiece.json"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# lowercase, strip_accents, tokenize_chinese_chars
SETTINGS = list(itertools.product([True, False], [True, False, None], [True, False]))
RECORDED = [
    (True, None, True),
    (True, False, True),
    (False, None, True),
    (False, True, False),
]

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

_SYLLABLES = """
İ I ı ß ﬁ σς Σ Ç é É ñ Ñ ÀÉÎõü Ǆ ǅ 가 각 힣 \u1100\u1161\u11a8 中文 日本語 ひらガ か\u3099 한국어
Привет Ёж é e\u0301 a\u0316\u0301\u302ex a\u0301\u0316b a\u0301\u302eb \u0344 \u0f73\u0f71 \u1fb7
\u2126 \u212b \u037e \u0387 \u1fef \u2329 \uf900 \U0002f800 \U0002b8f0 \U0002f9f4 \u302e\u0323
\U0001d15e \U0001d1bb 👩\u200d👩\u200d👧 👍🏽 🇫🇷 [MASK] [SEP] [CLS] [UNK] [PAD] [mask] [[MASK]]
## ##a hello HELLO don't foo[MASK]bar un-believ_able 3.14 $5 x² ½ ① ^ ~ `a` «b» “c” … — ؟ \u0640
\u05d1\u05bc नि ก็ \u0e33 \u200d \u200b \ufeff \ufffd \x00 \x07 \x85 \x0b \x0c \x1c \xad \u180e
\u2028 \u2029 \u3000 \xa0 \u1680 \u2003 \r \ue000 \U000e0001 \U0010ffff \ufffe \u08d4x\u0301
"""
SYLLABLES = re.findall(r"[^ \n]+", _SYLLABLES)
SYLLABLES += [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "a" * 100,
    "a" * 101,
    "é" * 100,
    "e\u0301" * 101,
    "中" * 102,
]


def random_texts(count: int, seed: int):
    """Texts of syllables, of code points of every category and of marks in any order."""
    draw = random.Random(seed)
    by_category: dict[str, list[int]] = {}
    for code_point in CODE_POINTS:
        by_category.setdefault(unicodedata.category(chr(code_point)), []).append(code_point)
    marks = [c for c in CODE_POINTS if unicodedata.combining(chr(c))]
    composed = [c for c in CODE_POINTS if unicodedata.normalize("NFD", chr(c)) != chr(c)]
    categories = list(by_category.values())
    for _ in range(count):
        yield "".join(
            draw.choice(
                [
                    chr(draw.choice(draw.choice(categories))),
                    chr(draw.choice(marks)),
                    chr(draw.choice(composed)),
                    draw.choice(SYLLABLES),
                    draw.choice(SYLLABLES),
                    draw.choice("abcdeABCDE 0.,'"),
                ]
            )
            for _ in range(draw.randrange(1, 16))
        )


def reference(vocabulary, lowercase=True, strip_accents=None, chinese=True):
    """The tokenizer that `transformers` makes for BERT."""
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def vocabulary(texts, size: int, settings=(True, None, True)) -> list[str]:
    """Pieces learned by `tokenizers`, which differ a little each time."""
    tokenizer = reference(["[UNK]"], *settings)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=SPECIAL, show_progress=False, limit_alphabet=size // 2
    )
    # None longer than TF-Text takes, 256 bytes.
    tokenizer.train_from_iterator([text for text in texts if "中" * 9 not in text], trainer)
    ids = tokenizer.get_vocab()
    return SPECIAL + sorted(set(ids) - set(SPECIAL))


def blocks():
    """Every code point within a word, 4,096 to a text."""
    for start in range(0, len(CODE_POINTS), 4096):
        yield " ".join(f"a{chr(c)}B" for c in CODE_POINTS[start : start + 4096])


def words_digest(settings) -> str:
    """A hash of the words in which every code point is."""
    tokenizer = reference(["[UNK]"], *settings)
    digest = hashlib.sha256()
    for text in blocks():
        clean = tokenizer.normalizer.normalize_str(text)
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(clean)]
        digest.update("\n".join([*words, ""]).encode())
    return digest.hexdigest()


def fixture_texts() -> list[str]:
    return ["", *SYLLABLES, *random_texts(60, seed=0)]


def make(pieces: list[str]) -> dict:
    """Everything that the fixture records of a vocabulary."""
    texts = fixture_texts()
    answers = []
    for settings in RECORDED:
        tokenizer = reference(pieces, *settings)
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        answers.append(
            {
                "settings": settings,
                "ids": [encoding.ids for encoding in encodings],
                "offsets": [encoding.offsets for encoding in encodings],
                "digest": words_digest(settings),
            }
        )
    spoken = [*SPECIAL, "a", "##a", ".", "?", "##!", ",", "'", "n't", "'s", "##'ve", "##", "do not"]
    draw = random.Random(1)
    rows = [draw.choices(range(len(spoken)), k=draw.randrange(8)) for _ in range(150)]
    decoded = [reference(spoken).decode(row, skip_special_tokens=True) for row in rows]
    return {
        "vocabulary": pieces,
        "texts": texts,
        "answers": answers,
        "decoding": {"vocabulary": spoken, "ids": rows, "texts": decoded},
    }


def plain(made: dict) -> dict:
    """As it comes back from the file: lists for tuples."""
    return json.loads(json.dumps(made))


if __name__ == "__main__":
    path = Path(sys.argv[1]) / FILE
    learned = vocabulary([*fixture_texts(), *map(str.lower, SYLLABLES)], 500)
    path.write_text(json.dumps(make(learned), separators=(",", ":")) + "\n")
