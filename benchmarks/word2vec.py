"""Vectors of words by the recipe word2vec and by gensim's Word2Vec, with the same settings.

    python benchmarks/word2vec.py TEXT… --pairs wordsim353.tsv --passes 5 10 --seeds 1 2 3

Needs gensim. PAIRS has two words and a number per line, parted by tabs; lines that begin with # are
skipped. Both get the same documents and words, and train with as many threads. Prints one JSON
line: for each number of passes the Spearman correlation with the pairs whose words are both in the
vocabulary (one per seed, and their mean), seconds and CPU seconds of one training (the mean, with
all that `fit` does, or with gensim's counting), and neighbours of a few words after the last one.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from gensim.models import Word2Vec

from tfllm.data import Records, prepare_words, read_documents
from tfllm.metrics import spearman
from tfllm.models import SkipGram
from tfllm.tokenizers.word_normalizer import WordNormalizer
from tfllm.trainers import fit, load_recipe


def read_pairs(path: Path) -> list[tuple[str, str, float]]:
    rows = [line.split("\t") for line in path.read_text().splitlines() if line[:1] != "#"]
    return [(a.lower(), b.lower(), float(number)) for a, b, number in rows]


def correlation(words: list[str], vectors: np.ndarray, pairs) -> tuple[float, int]:
    places = {word: i for i, word in enumerate(words)}
    known = [(places[a], places[b], n) for a, b, n in pairs if a in places and b in places]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = [unit[a] @ unit[b] for a, b, _ in known]
    return spearman(cosines, [number for *_, number in known]), len(known)


def train_ours(data: Path, passes: int, seed: int):
    recipe = load_recipe("word2vec")
    rows = Records(data).num_rows("train")
    steps = round(passes * rows / recipe.global_batch)
    with tempfile.TemporaryDirectory() as run:
        result = fit(
            dataclasses.replace(recipe, steps=steps, seed=seed),
            data=data,
            run=Path(run) / "run",
            tensorboard=Path(run) / "logs",
        )
        model = SkipGram.from_preset(result.preset)
    return (
        model.words,
        model.word_vectors,
        lambda word, k: [w for w, _ in model.neighbours(word, k)],
    )


def train_gensim(documents: list[list[str]], passes: int, seed: int, threads: int):
    recipe = load_recipe("word2vec")
    vectors = Word2Vec(
        documents,
        sg=1,
        vector_size=recipe.model["hidden_dim"],
        window=recipe.objective["window"],
        negative=recipe.objective["negatives"],
        sample=recipe.objective["sample"],
        min_count=5,
        epochs=passes,
        workers=threads,
        seed=seed,
    ).wv
    return (
        vectors.index_to_key,
        vectors.vectors,
        lambda word, k: [w for w, _ in vectors.most_similar(word, topn=k)],
    )


def measure(train, seeds, pairs, shown) -> dict:
    correlations, wall, cpu, known, near = [], [], [], 0, {}
    for seed in seeds:
        started, used = time.monotonic(), time.process_time()
        words, vectors, neighbours = train(seed)
        wall.append(time.monotonic() - started)
        cpu.append(time.process_time() - used)
        found, known = correlation(words, vectors, pairs)
        correlations.append(round(found, 4))
        near = {word: neighbours(word, 6) for word in shown if word in words}
    return {
        "spearman": correlations,
        "mean_spearman": round(float(np.mean(correlations)), 4),
        "pairs": known,
        "seconds": round(float(np.mean(wall)), 1),
        "cpu_seconds": round(float(np.mean(cpu)), 1),
        "neighbours": near,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--passes", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--words", nargs="+", default=["man", "happy", "london", "sister", "walk"])
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    pairs = read_pairs(args.pairs)
    texts = tf.constant(list(dict.fromkeys(read_documents(args.texts))))
    documents = [text.decode().split() for text in WordNormalizer().normalize(texts).numpy()]
    found: dict = {"texts": [Path(name).name for name in args.texts], "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "words"
        started = time.monotonic()
        prepare_words(args.texts, data)
        found["prepare_seconds"] = round(time.monotonic() - started, 1)
        for passes in args.passes:
            found[f"{passes} passes"] = {
                "tfllm": measure(
                    lambda seed, n=passes: train_ours(data, n, seed), args.seeds, pairs, args.words
                ),
                "gensim": measure(
                    lambda seed, n=passes: train_gensim(documents, n, seed, args.threads),
                    args.seeds,
                    pairs,
                    args.words,
                ),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
