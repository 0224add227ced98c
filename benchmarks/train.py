"""Speed of training a GPT: tfllm beside other ways to train the same model, in one run.

    taskset -c 1 python benchmarks/train.py --out speed --peers-python peers/bin/python
    taskset -c 1 python benchmarks/train.py --out speed --precision bfloat16 --engines run kerashub

6 layers of 384, 8,000 tokens, 256 positions, 16 rows per step, AdamW, no dropout: each engine has
the same model on random data, in a process of its own limited to `--threads`. They take turns, so
that what else the machine does meets all of them.

- run: `tfllm train`'s own loop, with callbacks, TensorBoard and clipping
- fit: `model.fit` of the same model class, without callbacks
- step: its train step alone, on one batch
- kerashub: KerasHub's TransformerDecoder, Keras's AdamW and `fit`
- torch, torch-compiled: a plain GPT with scaled_dot_product_attention, as it is and compiled (the
  compiler needs a C++ compiler), with the fused AdamW
- transformers: GPT2LMHeadModel in a torch loop
- floor: the matrix products of the step and nothing else, in TensorFlow

The three of torch run in the interpreter `--peers-python`, which has torch and transformers; they
are left out without it. Prints one JSON line per precision: tokens per second of processor time of
each engine, how many times as many `run` has, its share of the floor, the share of the processor's
peak (of a product of 2,048 × 2,048 matrices) that the products with weights are (MFU), and what the
loop costs beside the step.
"""

from training.engines import Kind
from training.main import main

ENGINES = {
    "run": Kind("tfllm", "run"),
    "fit": Kind("tfllm", "fit"),
    "step": Kind("tfllm", "step"),
    "kerashub": Kind("keras", "fit"),
    "torch": Kind("torch", "eager", is_peer=True),
    "torch-compiled": Kind("torch", "compiled", is_peer=True),
    "transformers": Kind("torch", "transformers", is_peer=True),
    "floor": Kind("matmul", "floor"),
    "peak": Kind("matmul", "peak", steps=10),
}

if __name__ == "__main__":
    main("gpt", ENGINES, __doc__)
