"""What Hugging Face `tokenizers` makes of hard texts: `python THIS tests/tokenizers/fixtures`."""

import json
import random
import sys
import unicodedata
from pathlib import Path
from pydoc_data import topics

import tokenizers
from tokenizers import pre_tokenizers, trainers

from tfllm.huggingface.byte_pair_spec import spec_of
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.splitting import PATTERNS

FILE = "byte_pair.json"
END = "<|endoftext|>"
VOCABULARY_SIZE = 420

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

_SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff\u180e"
_CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
_WORDS = "'s 'S 'ſ 'T 're 'VE 'll 'lL 'd 'm Hello world 你好 12345 ٠١٢٣ ... !!! don't it's \r\n"
_EMOJI = ["👩\u200d👩\u200d👧", "🇫🇷🇩🇪", "👍🏽", "❤\ufe0f", "1\ufe0f\u20e3", "🙂"]
_RUNS = [
    " x" * 20,
    "a" * 70,
    "ba" * 30,
    "-" * 65,
    "\n" * 9 + " " * 9 + "a",
    "你好世界" * 12,
    "é" * 9,
]


def unicode_lines(number: int, seed: int) -> list[str]:
    """Random lines of valid Unicode.

    They take from every general category as often as from any other, and hold white space of all
    kinds, control characters, long runs of one character, emoji, marks on marks, digits of every
    script, contractions, Chinese, and what stands between these.
    """
    draw = random.Random(seed)
    by_category: dict[str, list[str]] = {}
    for code_point in CODE_POINTS:
        by_category.setdefault(unicodedata.category(chr(code_point)), []).append(chr(code_point))
    pools = list(by_category.values())
    marks = by_category["Mn"] + by_category["Mc"]
    words = _WORDS.split(" ")

    def some(pool, most):
        return "".join(draw.choices(pool, k=draw.randint(1, most)))

    kinds = [
        lambda: some(draw.choice(pools), 6),
        lambda: some(draw.choice(pools), 6),
        lambda: some(draw.choice(pools), 6),
        lambda: "".join(some(draw.choice(pools), 1) for _ in range(8)),
        lambda: some(_SPACES, 5),
        lambda: some(_CONTROLS, 4),
        lambda: draw.choice(draw.choice(pools)) * draw.randint(1, 40),
        lambda: draw.choice(_EMOJI) + some(marks, 3),
        lambda: "".join(base + some(marks, 2) for base in "ae\u1100가"),
        lambda: " ".join(draw.choices(words, k=draw.randint(1, 4))),
    ]
    return ["".join(draw.choice(kinds)() for _ in range(draw.randint(1, 5))) for _ in range(number)]


def prose() -> list[str]:
    return [line for topic in topics.topics.values() for line in topic.split("\n")]


def reference(tokenizer: BytePairTokenizer) -> tokenizers.Tokenizer:
    """Hugging Face's tokenizer of the same vocabulary, without the added tokens."""
    spec = spec_of(
        tokenizer.vocabulary,
        tokenizer.merges,
        split=tokenizer.split,
        composes=tokenizer.composes,
        add_prefix_space=tokenizer.add_prefix_space,
        ignore_merges=tokenizer.ignore_merges,
    )
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def trained(texts: list[str], vocabulary_size: int, split: str) -> tokenizers.Tokenizer:
    """A vocabulary that Hugging Face's trainer learns."""
    tokenizer = tokenizers.Tokenizer.from_str(
        json.dumps(spec_of({}, [], split=split, composes=split == "qwen2"))
    )
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def merges_of(tokenizer: tokenizers.Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


def make() -> dict:
    corpus = [*prose()[:150], *unicode_lines(60, seed=5), *_RUNS]
    texts = ["", " ", *_RUNS, *prose()[200:230], *unicode_lines(120, seed=6)]
    splits = {}
    for split in PATTERNS:
        tokenizer = trained(corpus, VOCABULARY_SIZE, split)
        ids = [tokenizer.encode(text).ids for text in texts]
        splits[split] = {"merges": merges_of(tokenizer), "ids": ids}
    return {"corpus": corpus, "texts": texts, "splits": splits}


if __name__ == "__main__":
    content = json.dumps(make(), ensure_ascii=True, separators=(",", ":"))
    (Path(sys.argv[1]) / FILE).write_text(content.replace('"],', '"],\n') + "\n")
