"""Time of the byte-level BPE tokenizer in the graph, beside Hugging Face `tokenizers`.

    python benchmarks/tokenize_prompts.py FOLDER TEXT…

FOLDER holds vocab.json and merges.txt of GPT-2. Prompts of 1,000 characters are taken from the
middle of each TEXT (one in Chinese, say), from Python's source and its documentation, and from one
letter. They run through a SavedModel and the loader of the stock server, on one core.

Prints one JSON line: milliseconds of processor time per prompt in the graph and in the reference,
their ratio, and the growth of memory over 100,000 different words.
"""

import argparse
import inspect
import json
import os
import pydoc_data.topics
import resource
import tempfile
import time
from pathlib import Path

import tensorflow as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from tfllm.tokenizers.byte_pair import BytePairTokenizer

CHARACTERS = 1000
REPEATS = 100


def middle(text: str) -> str:
    start = (len(text) - CHARACTERS) // 2
    return text[start : start + CHARACTERS]


def prompts(paths: list[str]) -> dict[str, str]:
    found = {
        "english": "\n".join(pydoc_data.topics.topics.values()),
        "code": inspect.getsource(argparse),
        "one letter": "a" * CHARACTERS,
        **{Path(path).name: Path(path).read_text(encoding="utf-8") for path in paths},
    }
    return {name: middle(text) for name, text in found.items()}


def serve(tokenizer: BytePairTokenizer, folder: str):
    """The function that answers string[b], as the stock server would."""
    module = tf.Module()
    module.tokenize = tf.function(
        lambda text: {"token_ids": tokenizer.tokenize(text).to_tensor(-1)},
        input_signature=[tf.TensorSpec([None], tf.string, "text")],
        autograph=False,
    )
    tf.saved_model.save(module, folder, signatures=module.tokenize)
    tf1 = tf.compat.v1
    one_core = tf1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = tf1.Session(graph=tf.Graph(), config=one_core)
    signature = tf1.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
    return session.make_callable(
        signature.outputs["token_ids"].name, [signature.inputs["text"].name]
    )


def milliseconds(call) -> float:
    """Processor time, the median of many calls, after a tenth of them to warm up."""
    for _ in range(REPEATS // 10):
        call()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return 1e3 * sorted(times)[REPEATS // 2]


def growth_mb(answer, words: int = 100_000, per_call: int = 100) -> float:
    """Of the highest memory in use, over the second half of so many different words."""
    highest = []
    for start in range(0, words, per_call):
        answer([" ".join(f"w{number:x}ord" for number in range(start, start + per_call))])
        highest.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return highest[-1] - highest[len(highest) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", nargs="*")
    args = parser.parse_args()
    files = [os.fspath(args.folder / name) for name in ("vocab.json", "merges.txt")]
    started = time.process_time()
    tokenizer = BytePairTokenizer(*files)
    construction_s = time.process_time() - started
    reference = Tokenizer(models.BPE.from_file(*files))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = {"construction_s": round(construction_s, 2), "milliseconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        answer = serve(tokenizer, folder)
    for name, text in prompts(args.texts).items():
        expected = reference.encode(text).ids
        if answer([text])[0].tolist() != expected:
            raise SystemExit(f"{name}: the token ids differ from the reference's.")
        graph, peer = (
            milliseconds(lambda t=text: answer([t])),
            milliseconds(lambda t=text: reference.encode(t)),
        )
        found["milliseconds"][name] = {
            "graph": round(graph, 2),
            "reference": round(peer, 2),
            "ratio": round(graph / peer, 1),
            "tokens": len(expected),
        }
    found["growth_mb_over_50000_words"] = round(growth_mb(answer), 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
