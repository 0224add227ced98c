"""How much written texts share with reference texts: BLEU and chrF by sacrebleu, ROUGE.

`rouge_score` reads nothing but the characters a-z and 0-9: of a text in Chinese nothing is left, of
one in French the accents part the words. So texts in other languages need another way to part them,
see `ROUGE_TOKENIZERS`; numbers of different ways cannot be compared.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tfllm.errors import UserError

# Those of sacrebleu that download nothing and need no other package.
BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none")


def _unicode_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _characters(text: str) -> list[str]:
    return [c for c in text.lower() if not c.isspace()]


# "english" is rouge-score's own; "words" are runs of letters and digits of any script, in lower
# case; "characters" are for scripts without spaces.
ROUGE_TOKENIZERS: dict[str, Callable[[str], list[str]] | None] = {
    "english": None,
    "words": _unicode_words,
    "characters": _characters,
}


class Overlap(NamedTuple):
    """A corpus score and how it was computed.

    Attributes:
        score: In [0, 100].
        signature: sacrebleu's, to be reported beside the score.
    """

    score: float
    signature: str


class Rouge(NamedTuple):
    """Means over the rows, in [0, 1].

    Attributes:
        rouge1: F1 of single words.
        rouge2: F1 of pairs of words.
        rouge_l: F1 by the longest common subsequence of words.
    """

    rouge1: float
    rouge2: float
    rouge_l: float


References = Sequence[str | Sequence[str]]


def bleu(
    hypotheses: Sequence[str],
    references: References,
    *,
    tokenizer: str = "13a",
    lowercase: bool = False,
) -> Overlap:
    """Corpus BLEU.

    Args:
        hypotheses: The texts of the model.
        references: The right text of each, or a list of several.
        tokenizer: One of `BLEU_TOKENIZERS`: 13a for languages that write spaces, zh for Chinese,
            char for other scripts without spaces, intl for more punctuation, none for texts that
            are parted already.
        lowercase: Whether upper case counts as lower case.

    Raises:
        UserError: the tokenizer is unknown, there are no texts, or not as many references.

    Source:
        Papineni et al. 2002; Post 2018, https://arxiv.org/abs/1804.08771
    """
    if tokenizer not in BLEU_TOKENIZERS:
        raise UserError(
            f"The BLEU tokenizer must be one of {', '.join(BLEU_TOKENIZERS)}, got {tokenizer!r}."
        )
    from sacrebleu.metrics import BLEU

    # `force` only silences the warning that the texts look parted already.
    return _corpus(
        BLEU(tokenize=tokenizer, lowercase=lowercase, force=True), hypotheses, references
    )


def chrf(hypotheses: Sequence[str], references: References, *, word_order: int = 0) -> Overlap:
    """Corpus chrF, by characters; with `word_order` 2 it is chrF++.

    Args:
        hypotheses: The texts of the model.
        references: The right text of each, or a list of several.
        word_order: Longest run of words that counts beside the characters.

    Raises:
        UserError: there are no texts, or not as many references.

    Source:
        Popović 2015, https://aclanthology.org/W15-3049
    """
    from sacrebleu.metrics import CHRF

    return _corpus(CHRF(word_order=word_order), hypotheses, references)


def rouge(
    hypotheses: Sequence[str],
    references: References,
    *,
    tokenizer: str = "english",
    stemmer: bool = False,
) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L.

    Args:
        hypotheses: The texts of the model.
        references: The right text of each, or a list of several, of which the best counts.
        tokenizer: One of `ROUGE_TOKENIZERS`.
        stemmer: Whether words are cut to their stems by Porter's rules, for English.

    Raises:
        UserError: the tokenizer is unknown, stems are wanted of another one than "english", there
            are no texts, or not as many references.

    Source:
        Lin 2004, https://aclanthology.org/W04-1013; numbers of `rouge_score`.
    """
    if tokenizer not in ROUGE_TOKENIZERS:
        raise UserError(
            f"The ROUGE tokenizer must be one of {', '.join(ROUGE_TOKENIZERS)}, got {tokenizer!r}."
        )
    if stemmer and tokenizer != "english":
        raise UserError(f"Stems are of English: leave them out, or the tokenizer {tokenizer!r}.")
    several = _several(hypotheses, references)
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    parted = ROUGE_TOKENIZERS[tokenizer]
    scorer = RougeScorer(kinds, stemmer, tokenizer=None if parted is None else _Parted(parted))
    rows = [scorer.score_multi(*pair) for pair in zip(several, hypotheses, strict=True)]
    return Rouge(*(sum(row[kind].fmeasure for row in rows) / len(rows) for kind in kinds))


class _Parted:
    """The one method that `RougeScorer` wants of a tokenizer."""

    def __init__(self, split: Callable[[str], list[str]]):
        self.tokenize = split


def _corpus(metric: Any, hypotheses: Sequence[str], references: References) -> Overlap:
    several = _several(hypotheses, references)
    most = max(map(len, several))
    # sacrebleu wants the first references of all rows, then the second ones; None = there is none.
    streams = [[row[i] if i < len(row) else None for row in several] for i in range(most)]
    score = metric.corpus_score(list(hypotheses), streams).score
    return Overlap(float(score), str(metric.get_signature()))


def _several(hypotheses: Sequence[str], references: References) -> list[list[str]]:
    several = [[row] if isinstance(row, str) else list(row) for row in references]
    if not several or len(hypotheses) != len(several) or not all(several):
        raise UserError(
            f"Expected references for each text, got {len(hypotheses)} texts and references for "
            f"{sum(map(bool, several))}."
        )
    return several
