"""Makes the small BERT checkpoints of the tests, and what `transformers` answers with them.

python tests/parity/make_bert.py tests/huggingface/fixtures
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from prompts import prompts
from tokenizers import BertWordPieceTokenizer

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    # Large, so that answers differ.
    "initializer_range": 0.35,
}
MODEL_MAX_LENGTH = 56
LABELS = ["sad", "glad", "neither"]

KINDS = {
    "bert-classifier": (
        transformers.BertForSequenceClassification,
        {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}},
    ),
    "bert-pretraining": (transformers.BertForPreTraining, {}),
    "bert-qa": (transformers.BertForQuestionAnswering, {}),
    "bert-embedder": (transformers.BertModel, {}),
}


def make(folder, model_class, seed=0, lowercase=True, vocabulary_size=260, **config):
    """Writes a random checkpoint; of a `BertModel` as a folder of sentence-transformers."""
    torch.manual_seed(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = BertWordPieceTokenizer(lowercase=lowercase)
    trained.train_from_iterator(
        prompts() * 2, vocabulary_size, min_frequency=1, limit_alphabet=80, show_progress=False
    )
    trained.save_model(str(folder))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "model_max_length": MODEL_MAX_LENGTH,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    model = model_class(
        transformers.BertConfig(vocab_size=trained.get_vocab_size(), **(SIZES | config))
    ).eval()
    with torch.no_grad():  # transformers begins with biases of 0 and norms of 1
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model, transformers.BertTokenizer.from_pretrained(folder)


def pairs():
    """Fifty pairs of texts; some have no second one."""
    texts = prompts()
    return [(text, texts[(7 * i + 3) % 50]) for i, text in enumerate(texts)]


def masked(tokenizer):
    """The prompts, each with a mask in it, some with two."""
    mask = tokenizer.mask_token
    return [
        f"{text[: len(text) // 2]} {mask} {text[len(text) // 2 :]}" + f" {mask}" * (i % 9 == 8)
        for i, text in enumerate(prompts())
    ]


def questions():
    """Fifty questions with their contexts, of which many need several windows."""
    texts = [text for text in prompts() if text.strip() and text.isprintable()]
    long = [" ".join(texts[i : i + 1 + i % 12]) for i in range(len(texts))]
    rows = [(texts[(5 * i + 2) % len(texts)][:12], context) for i, context in enumerate(long)]
    return (rows + [(f"{question}?", context) for question, context in rows])[:50]


def classified(model, tokenizer, text, text_pair=""):
    """Probabilities, as the text-classification pipeline gives them."""
    read = tokenizer(text, text_pair or None, truncation=True, return_tensors="pt")
    logits = model(**read).logits[0]
    if model.config.problem_type == "regression":
        return logits.tolist()
    if model.config.problem_type == "multi_label_classification" or len(logits) == 1:
        return logits.sigmoid().tolist()
    return logits.softmax(-1).tolist()


def filled(model, tokenizer, text, top_k=5):
    """Tokens, scores and texts for the first mask, as the fill-mask pipeline gives them."""
    read = tokenizer(text, truncation=True, return_tensors="pt")
    places = torch.nonzero(read.input_ids[0] == tokenizer.mask_token_id).flatten()
    if not len(places):
        return None
    out = model(**read)
    logits = out.prediction_logits if hasattr(out, "prediction_logits") else out.logits
    best = logits[0, places[0]].softmax(-1).topk(top_k)
    texts = []
    for token in best.indices:
        ids = read.input_ids[0].clone()
        ids[places[0]] = token
        texts.append(tokenizer.decode(ids, skip_special_tokens=len(places) == 1))
    tokens = [tokenizer.decode([token]) for token in best.indices.tolist()]
    return {"token": tokens, "score": best.values.tolist(), "text": texts}


def answered(model, tokenizer, question, context, impossible=False, most=15):
    """The best span over all windows: the algorithm of the pipeline of transformers 4."""
    length = min(tokenizer.model_max_length, 384)
    encoded = tokenizer(
        question, context, truncation="only_second", max_length=length,
        stride=min(length // 2, 128), return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    answers, nothing = [], 1e6
    for window, ids in enumerate(encoded["input_ids"]):
        out = model(
            input_ids=torch.tensor([ids]),
            token_type_ids=torch.tensor([encoded["token_type_ids"][window]]),
        )
        kinds = np.array([kind == 1 for kind in encoded.sequence_ids(window)])
        allowed = kinds | (np.arange(len(ids)) == 0)
        start, end = (
            np.exp(x - x.max()) / np.exp(x - x.max()).sum()
            for x in (
                np.where(allowed, logits[0].numpy(), -10000.0)
                for logits in (out.start_logits, out.end_logits)
            )
        )
        nothing = min(nothing, float(start[0] * end[0]))
        start[0] = end[0] = 0
        spans = np.tril(np.triu(np.outer(start, end)), most - 1)
        first, last = np.unravel_index(spans.argmax(), spans.shape)
        encoding = encoded.encodings[window]
        begin = encoding.word_to_chars(encoding.token_to_word(int(first)), 1)[0]
        stop = encoding.word_to_chars(encoding.token_to_word(int(last)), 1)[1]
        answers.append((float(spans.max()), begin, stop))
    if impossible:
        answers.append((nothing, 0, 0))
    score, begin, stop = max(answers, key=lambda answer: answer[0])
    return {"answer": context[begin:stop], "score": score, "start": begin, "end": stop}


def embedded(model, tokenizer, text, pooling="mean"):
    """A unit vector, as sentence-transformers makes it."""
    read = tokenizer(text, truncation=True, return_tensors="pt")
    hidden = model(**read).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[pooling]
    return (pooled / pooled.norm()).tolist()


def expected(kind, model, tokenizer):
    """Answers to the fifty prompts."""
    with torch.no_grad():
        if kind == "bert-classifier":
            return [
                {"text": a, "text_pair": b, "scores": classified(model, tokenizer, a, b)}
                for a, b in pairs()
            ]
        if kind == "bert-pretraining":
            return [
                {
                    "text": text, "first": a, "second": b,
                    "filled": filled(model, tokenizer, text),
                    "follows": follows(model, tokenizer, a, b),
                }
                for text, (a, b) in zip(masked(tokenizer), pairs(), strict=True)
            ]  # fmt: skip
        if kind == "bert-qa":
            return [
                {"question": q, "context": c, **answered(model, tokenizer, q, c)}
                for q, c in questions()
            ]
        return [{"text": t, "embedding": embedded(model, tokenizer, t)} for t in prompts()]


def follows(model, tokenizer, first, second):
    """The probability that the second text follows the first one."""
    read = tokenizer(first, second or None, truncation=True, return_tensors="pt")
    return model(**read).seq_relationship_logits[0].softmax(-1)[0].item()


def rounded(value):
    """JSON with short numbers."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (kind, (model_class, config)) in enumerate(KINDS.items()):
        target = Path(sys.argv[1]) / kind
        rows = expected(kind, *make(target, model_class, seed, **config))[::2]
        lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
        (target / "expected.json").write_text(f"[\n{lines}\n]\n")
