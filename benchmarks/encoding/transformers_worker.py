"""`AutoModelForSequenceClassification` of Hugging Face transformers, on torch."""

import os

from worker import answer_lines, arguments, batch_by_batch

args = arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)


def load():
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(args.threads)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.folder, dtype=getattr(torch, args.precision)
    ).eval()

    def call(batch):
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(x) for name, x in batch.items()}).logits

    return batch_by_batch(call, args.grouped)


answer_lines(load)
