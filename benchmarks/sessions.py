"""What texts that stay in the server cost a step, beside `generate`; and what a second turn saves.

    python benchmarks/decode.py --shape gpt2-small --engines tfllm-int8 --batch 1 --out decode
    python benchmarks/sessions.py decode/gpt2-small/preset --out sessions

The export runs through a v1 Session on one thread, as in the stock server; rounds of `generate` and
of `decode` with so many tokens a call take turns. (The first command is there for the preset.)

Prints one JSON line: CPU milliseconds of a step of all rows, with what reading the prompts takes,
medians of the rounds; and the seconds from the prompt of a second turn of a chat to its first
token, with and without what the first turn left behind.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 - registers its ops

import tfllm
from tfllm import contract
from tfllm.export import for_serving

ROWS = 8


class Session:
    """The signatures of an export, as functions of columns."""

    def __init__(self, folder: Path):
        tf1 = tf.compat.v1
        config = tf1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        self._session = tf1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            loaded = tf1.saved_model.load(self._session, ["serve"], str(folder))
        self._signatures = loaded.signature_def
        self._callables: dict = {}

    def __call__(self, name: str, **columns) -> dict[str, np.ndarray]:
        signature, fields = self._signatures[name], contract.SIGNATURES[name].inputs
        outputs = list(signature.outputs)
        if name not in self._callables:
            self._callables[name] = self._session.make_callable(
                [signature.outputs[output].name for output in outputs],
                [signature.inputs[field.name].name for field in fields],
            )
        rows = len(next(iter(columns.values())))
        values = [
            np.array(
                columns.get(field.name, [field.default] * rows),
                object if field.dtype == "string" else field.dtype,
            )
            for field in fields
        ]
        return dict(zip(outputs, self._callables[name](*values), strict=True))


class Bench:
    """Rounds on one export."""

    def __init__(self, args, ask: Session):
        self.args = args
        self.ask = ask
        self.random = np.random.default_rng(args.seed)

    def prompts(self, rows: int, letters: int) -> list[str]:
        chars = self.random.integers(ord("a"), ord("z") + 1, [rows, letters], np.uint8)
        return [row.tobytes().decode() for row in chars]

    def generate(self) -> float:
        """CPU seconds."""
        began = time.process_time()
        self.ask(
            "generate",
            prompt=self.prompts(ROWS, self.args.prompt),
            max_new_tokens=[self.args.new] * ROWS,
        )
        return time.process_time() - began

    def decode(self, tokens: int) -> float:
        """CPU seconds with so many tokens a call."""
        began = time.process_time()
        slots, leases = self.begin(self.prompts(ROWS, self.args.prompt))
        position = np.zeros(ROWS, np.int32)
        while (position < self.args.new).any():
            told = self.ask(
                "decode", slot=slots, lease=leases, position=position, max_tokens=[tokens] * ROWS
            )
            position = told["position"]
            if all(told["finish_reason"]):
                break
        self.ask("release", slot=slots, lease=leases)
        return time.process_time() - began

    def begin(self, prompts):
        leases = [f"{self.random.integers(2**62)}" for _ in prompts]
        new = [self.args.new] * len(prompts)
        told = self.ask("prefill", prompt=prompts, lease=leases, max_new_tokens=new)
        assert not any(told["error"]), told["error"]
        return told["slot"], leases

    def first_token(self, prompt: str) -> float:
        """Seconds until it is there."""
        began = time.perf_counter()
        slots, leases = self.begin([prompt])
        self.ask("decode", slot=slots, lease=leases, position=[0], max_tokens=[1])
        seconds = time.perf_counter() - began
        self.ask("release", slot=slots, lease=leases)
        return seconds

    def second_turn(self) -> tuple[float, float]:
        """Seconds to its first token: what goes on from the first turn, and what begins anew."""
        history, more = self.prompts(2, self.args.history)
        self.first_token(history)
        turn = self.prompts(1, 16)[0]
        return self.first_token(history + turn), self.first_token(more + turn)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--out", default="sessions", help="where the export is written")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--prompt", type=int, default=32, help="letters")
    parser.add_argument("--history", type=int, default=400, help="letters of the first turn")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    exports = sorted(Path(args.out).glob("*/saved_model.pb"))
    if not exports:
        model = tfllm.CausalLM.from_preset(args.preset, dtype="float32")
        for_serving(model, args.out, precision=args.precision, sessions=ROWS, warm_up=[])
        exports = sorted(Path(args.out).glob("*/saved_model.pb"))
    bench = Bench(args, Session(exports[-1].parent))
    bench.generate(), bench.second_turn()
    for tokens in args.tokens:
        bench.decode(tokens)
    generate, decode = [], {tokens: [] for tokens in args.tokens}
    turns = []
    for _ in range(args.rounds):
        generate.append(bench.generate())
        for tokens in args.tokens:
            decode[tokens].append(bench.decode(tokens))
        turns.append(bench.second_turn())
    step_ms = 1000 / args.new
    plain = statistics.median(generate)
    kept, anew = (statistics.median(seconds) for seconds in zip(*turns, strict=True))
    print(
        json.dumps(
            {
                "export": str(exports[-1].parent),
                "rows": ROWS,
                "generate_step_ms": round(plain * step_ms, 2),
                "decode_step_ms": {
                    tokens: round(statistics.median(s) * step_ms, 2) for tokens, s in decode.items()
                },
                "decode_to_generate": {
                    tokens: round(statistics.median(s) / plain, 3) for tokens, s in decode.items()
                },
                "second_turn_s": round(kept, 4),
                "second_turn_anew_s": round(anew, 4),
                "second_turn_ratio": round(anew / kept, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
