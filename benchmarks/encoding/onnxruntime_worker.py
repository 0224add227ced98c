"""ONNX Runtime, on what `onnx_checkpoint.py` made of the same folder of Hugging Face."""

import os

from worker import answer_lines, arguments, batch_by_batch

args = arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)


def load():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1  # nodes run one after the other, each on all threads
    session = onnxruntime.InferenceSession(
        os.path.join(args.folder, f"{args.precision}.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )
    return batch_by_batch(lambda batch: session.run(["logits"], batch)[0], args.grouped)


answer_lines(load)
