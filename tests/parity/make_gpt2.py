"""Makes the small GPT-2 checkpoint of the tests, and what `transformers` answers with it.

python tests/parity/make_gpt2.py tests/huggingface/fixtures/gpt2
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from prompts import prompts
from tokenizers import ByteLevelBPETokenizer

END = "<|endoftext|>"
NEW_TOKENS, BEAMS = 12, 4


def make(folder, seed=0, vocabulary_size=800, tokenizer_json=False, **config):
    """Writes a random checkpoint: large initial weights, so that answers differ."""
    torch.manual_seed(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        prompts() * 2, vocabulary_size, min_frequency=1, special_tokens=[END], show_progress=False
    )
    end = trained.token_to_id(END)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128} | config
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=trained.get_vocab_size(), bos_token_id=end, eos_token_id=end,
            initializer_range=0.35, **sizes,
        )
    ).eval()  # fmt: skip
    model.save_pretrained(folder)
    trained.save_model(str(folder))
    tokenizer = transformers.GPT2Tokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    if tokenizer_json:
        tokenizer.save_pretrained(folder)
    return model, tokenizer


def expected(model, tokenizer):
    """Token ids, logits, and greedy and beam-search texts of the fifty prompts."""
    rows = []
    end = model.config.eos_token_id
    for prompt in prompts():
        ids = tokenizer(prompt).input_ids
        read = torch.tensor([ids or [end]])
        told = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": end}

        def text(sequence, read=read):
            new = sequence[read.shape[1] :]
            return tokenizer.decode(
                new, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )

        with torch.no_grad():
            logits = model(read).logits[0, -1]
            greedy = model.generate(read, attention_mask=torch.ones_like(read), **told)
            beams = model.generate(
                read, attention_mask=torch.ones_like(read), num_beams=BEAMS,
                num_return_sequences=BEAMS, return_dict_in_generate=True, output_scores=True,
                **told,
            )  # fmt: skip
        rows.append(
            {
                "prompt": prompt,
                "token_ids": ids,
                "logits": [round(x, 4) for x in logits[:8].tolist()],
                "text": text(greedy[0]),
                "beams": [text(sequence) for sequence in beams.sequences],
                "scores": [round(x, 5) for x in beams.sequences_scores.tolist()],
            }
        )
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = expected(*make(sys.argv[1]))
    target = Path(sys.argv[1]) / "expected.json"
    lines = ",\n".join(json.dumps(row) for row in answers)
    target.write_text(f"[\n{lines}\n]\n")
