"""What the reference libraries make of hard cases: `python THIS tests/metrics/fixtures SCRIPT`.

SCRIPT is the official evaluate-v2.0.py of SQuAD. scikit-learn, scipy, sacrebleu, rouge-score and
gensim are those that are installed; their versions are recorded.
"""

import importlib.metadata
import importlib.util
import json
import sys
import warnings
from pathlib import Path

import numpy as np

LIBRARIES = ("scikit-learn", "scipy", "sacrebleu", "rouge-score", "gensim")

TEXTS = {
    "english": (
        ["The cat sat on the mat.", "It's raining: 3.5 cm, again!", "", "completely different"],
        [
            "The cat sat on a mat.",
            "It is raining 3.5 cm again.",
            "something",
            "not the same at all",
        ],
    ),
    "french": (
        ["Le café est fermé aujourd'hui.", "L'été, c'est très loin…"],
        ["Le café était fermé hier.", "L'été c'est loin !"],
    ),
    "chinese": (
        ["今天天气很好，我们去公园。", "猫坐在垫子上 mat。"],
        ["今天天气不错，我们去公园吧。", "一只猫坐在 mat 上。"],
    ),
    "several references": (
        ["a b c d e f", "the house is small"],
        [["a b c x e f", "a b c d"], ["the house is very small"]],
    ),
    "nothing written": (["", ""], ["one two", "three"]),
}

QUESTIONS = [
    ("the Eiffel Tower", ["Eiffel Tower", "tower"]),
    ("An Eiffel-Tower!", ["Eiffel Tower"]),
    ("tower tower of Paris", ["the tower of Paris", "Paris"]),
    ("", []),
    ("something", []),
    ("", ["an answer"]),
    ("the", ["a", "the"]),
    ("the", ["the", "cat"]),
    ("42", ["forty two", "42."]),
    ("北京", ["北京"]),
    ("a  b\tc", ["b c d"]),
]


def classification(draw):
    """Random rows, with a class that no row has, one that is never given, and ties of scores."""
    from sklearn import metrics

    cases = []
    for num_classes, rows, truths in ((2, 30, 2), (4, 60, 4), (5, 40, 3), (3, 12, 1)):
        truth = draw.integers(0, truths, rows)
        scores = np.round(draw.dirichlet(np.ones(num_classes), rows), 1)  # rounding makes ties
        predicted = np.where(draw.random(rows) < 0.6, truth, np.argmax(scores, 1))
        labels = list(range(num_classes))
        averages = {
            how: metrics.precision_recall_fscore_support(
                truth, predicted, average=how, zero_division=0
            )[:3]
            for how in ("macro", "micro")
        }
        each = metrics.precision_recall_fscore_support(
            truth, predicted, labels=labels, zero_division=0
        )[:3]
        both = [c for c in labels if 0 < (truth == c).sum() < rows]
        cases.append(
            {
                "num_classes": num_classes,
                "truth": truth.tolist(),
                "predicted": predicted.tolist(),
                "scores": scores.tolist(),
                "confusion": metrics.confusion_matrix(truth, predicted, labels=labels).tolist(),
                "accuracy": metrics.accuracy_score(truth, predicted),
                "matthews": metrics.matthews_corrcoef(truth, predicted),
                "macro": averages["macro"],
                "micro": averages["micro"],
                "per_class": np.transpose(each).tolist(),
                "roc_auc": {c: metrics.roc_auc_score(truth == c, scores[:, c]) for c in both},
                "average_precision": {
                    c: metrics.average_precision_score(truth == c, scores[:, c]) for c in both
                },
            }
        )
    return cases


def correlation(draw):
    """Rows with ties, in order, against the order, and random."""
    from scipy import stats

    x = draw.normal(size=20)
    pairs = [
        (x, x**3),
        (x, -x),
        (np.round(x), np.round(x + draw.normal(size=20))),
        (x, draw.normal(size=20)),
        (draw.integers(0, 3, 30), draw.integers(0, 2, 30)),
    ]
    return [
        {
            "x": np.asarray(a, float).tolist(),
            "y": np.asarray(b, float).tolist(),
            "spearman": float(stats.spearmanr(a, b).statistic),
            "pearson": float(stats.pearsonr(a, b).statistic),
        }
        for a, b in pairs
    ]


def text_overlap():
    """sacrebleu and rouge-score as they are called by hand."""
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    cases = {}
    for name, (hypotheses, references) in TEXTS.items():
        several = [[row] if isinstance(row, str) else row for row in references]
        most = max(map(len, several))
        streams = [[row[i] if i < len(row) else None for row in several] for i in range(most)]
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
        rows = [scorer.score_multi(r, h) for r, h in zip(several, hypotheses, strict=True)]
        cases[name] = {
            "hypotheses": hypotheses,
            "references": references,
            "bleu": {
                tokenizer: sacrebleu.corpus_bleu(hypotheses, streams, tokenize=tokenizer).score
                for tokenizer in ("13a", "intl", "zh", "char", "none")
            },
            "chrf": sacrebleu.corpus_chrf(hypotheses, streams).score,
            "chrf++": sacrebleu.corpus_chrf(hypotheses, streams, word_order=2).score,
            "rouge": {
                kind: float(np.mean([row[kind].fmeasure for row in rows]))
                for kind in ("rouge1", "rouge2", "rougeL")
            },
        }
    return cases


def spans(script):
    """The official script on `QUESTIONS`."""
    spec = importlib.util.spec_from_file_location("official", script)
    official = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    asked = [
        {"id": str(i), "answers": [{"text": answer} for answer in answers]}
        for i, (_, answers) in enumerate(QUESTIONS)
    ]
    predictions = {str(i): prediction for i, (prediction, _) in enumerate(QUESTIONS)}
    exact, f1 = official.get_raw_scores([{"paragraphs": [{"qas": asked}]}], predictions)
    has = [question["id"] for question in asked if question["answers"]]
    none = [question["id"] for question in asked if not question["answers"]]
    kinds = {"all": None, "has_answer": has, "no_answer": none}
    return {
        "predictions": [prediction for prediction, _ in QUESTIONS],
        "answers": [answers for _, answers in QUESTIONS],
        "exact": list(exact.values()),
        "f1": list(f1.values()),
        "means": {k: dict(official.make_eval_dict(exact, f1, ids)) for k, ids in kinds.items()},
    }


def analogies(draw):
    """gensim's answers to random questions over random vectors."""
    from gensim.models import KeyedVectors

    words = [f"w{i}" for i in range(30)]
    vectors = np.round(draw.normal(size=(30, 4)), 3).astype(np.float32)
    found = KeyedVectors(4)
    found.add_vectors(words, vectors)
    questions = [draw.choice(30, 3, replace=False).tolist() for _ in range(40)]
    nearest = [
        found.most_similar(positive=[words[b], words[c]], negative=[words[a]], topn=1)[0][0]
        for a, b, c in questions
    ]
    return {
        "vectors": vectors.astype(float).round(3).tolist(),
        "questions": questions,
        "nearest": [words.index(word) for word in nearest],
    }


def main(folder, script):
    """Writes metrics.json."""
    warnings.simplefilter("ignore")  # of classes that nobody has: they are wanted here
    draw = np.random.default_rng(0)
    recorded = {
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "classification": classification(draw),
        "correlation": correlation(draw),
        "text_overlap": text_overlap(),
        "spans": spans(script),
        "analogies": analogies(draw),
    }
    text = json.dumps(recorded, ensure_ascii=False)
    Path(folder, "metrics.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
