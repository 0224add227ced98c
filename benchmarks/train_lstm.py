"""Speed of training an LSTM: tfllm beside Keras and torch with the same model, in one run.

    taskset -c 1 python benchmarks/train_lstm.py --out speed --peers-python peers/bin/python

2 layers of 512, 8,000 tokens, 128 positions, 32 rows per step, AdamW, tied embeddings: see train.py
for what is measured and printed. Beside `run`, `fit` and `step` of tfllm:

- keras: keras.layers.LSTM and `fit`
- torch: torch.nn.LSTM in a plain loop
"""

from training.engines import Kind
from training.main import main

ENGINES = {
    "run": Kind("tfllm", "run"),
    "fit": Kind("tfllm", "fit"),
    "step": Kind("tfllm", "step"),
    "keras": Kind("keras", "fit"),
    "torch": Kind("torch", "eager", is_peer=True),
    "floor": Kind("matmul", "floor"),
    "peak": Kind("matmul", "peak", steps=10),
}

if __name__ == "__main__":
    main("lstm", ENGINES, __doc__)
