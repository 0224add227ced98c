"""float32.onnx and int8.onnx beside a classifier of Hugging Face.

    python onnx_checkpoint.py FOLDER

The graph is what torch traces, with eager attention and any number of rows and tokens. For int8 it
is quantized dynamically: weights int8 with one scale per matrix, activations uint8 with one scale
per tensor, as `quantize_dynamic` does without options but the weights' type.
"""

import sys
import warnings
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification


class Logits(torch.nn.Module):
    def __init__(self, folder: Path):
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation="eager"
        )

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def main() -> None:
    warnings.simplefilter("ignore")  # of the tracer: that a shape is taken for a number
    folder = Path(sys.argv[1])
    some = torch.ones((2, 16), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        Logits(folder).eval(),
        (some, some),
        folder / "float32.onnx",
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}},
        opset_version=17,
        dynamo=False,  # the other exporter needs a package more, onnxscript
    )
    quantize_dynamic(folder / "float32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main()
