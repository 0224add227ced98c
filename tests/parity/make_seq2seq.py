"""Makes small T5 and Marian checkpoints, and what `transformers` answers with them.

    python tests/parity/make_seq2seq.py tests/huggingface/fixtures

makes the folders t5-relu, t5-gated, marian-shared and marian-separate there.
"""

import json
import re
import sys
from pathlib import Path

import sentencepiece
import torch
import transformers
from prompts import prompts

BEAMS, NEW_TOKENS = 4, 12
_PIECES, _EXTRA_IDS = 250, 3


def _texts():
    """What the tokenizers know: English, one line of Chinese, no other script."""
    return [text for text in prompts() if text.isascii() or "你好" in text] * 2


def _train(folder, name, texts, **options):
    """A SentencePiece model that normalizes white space: the usual table would be most of it."""
    rules = folder / "rules.tsv"
    rules.write_text("".join(f"{code}\t20\n" for code in ("9", "A", "D", "85", "2028", "3000")))
    lines = folder / f"{name}.txt"
    # SentencePiece cannot learn from these characters.
    lines.write_text("\n".join(re.sub(r"[\x00-\x1f\x7f]", " ", text) for text in texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(folder / name), vocab_size=_PIECES,
        normalization_rule_tsv=str(rules), character_coverage=1.0, hard_vocab_limit=False,
        minloglevel=2, **options,
    )  # fmt: skip
    lines.unlink()
    rules.unlink()
    (folder / f"{name}.vocab").unlink()
    suffix = ".model" if name == "spiece" else ".spm"  # as `transformers` looks for them
    return (folder / f"{name}.model").rename(folder / f"{name}{suffix}")


def make_t5(folder, seed=0, untied=False, **config):
    """A random T5, its tokenizer, and what gives token ids; a little trained."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model_file = _train(folder, "spiece", _texts(), pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": _EXTRA_IDS})
    )
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=_EXTRA_IDS)
    processor = sentencepiece.SentencePieceProcessor(str(model_file))
    sizes = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2} | config
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=processor.vocab_size() + _EXTRA_IDS + 2, decoder_start_token_id=0,
            **sizes,
        )
    ).eval()  # fmt: skip
    if untied:
        head = model.shared.weight.detach().clone()
        model.lm_head.weight = torch.nn.Parameter(0.1 * torch.randn_like(head))
    _teach(model, tokenizer)
    model.generation_config.max_new_tokens = NEW_TOKENS
    model.half().save_pretrained(folder)
    return load(folder)


def make_marian(folder, seed=0, separate=False, **config):
    """As `make_t5`; a Marian with the settings of those of Helsinki-NLP, a little trained."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    backwards = [_backwards(text) for text in _texts()]
    pieces = []
    for name, texts in (("source", _texts()), ("target", backwards)):
        file = _train(folder, name, texts)
        processor = sentencepiece.SentencePieceProcessor(str(file))
        pieces.append([processor.id_to_piece(i) for i in range(3, processor.vocab_size())])
    source, target = pieces if separate else [pieces[0] + pieces[1]] * 2
    vocabularies = {"vocab.json": source, "target_vocab.json": target}
    if not separate:
        del vocabularies["target_vocab.json"]
    size = {}
    for name, known in vocabularies.items():
        tokens = ["</s>", "<unk>", *dict.fromkeys([">>fra<<", *known])]
        # The padding comes last, and in both at the same place.
        tokens = tokens[:_PIECES] if separate else tokens
        ids = {token: i for i, token in enumerate([*tokens, "<pad>"])}
        size[name] = len(ids)
        (folder / name).write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    told = {"separate_vocabs": separate, "source_lang": "eng", "target_lang": "fra"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MarianTokenizer", "model_max_length": 512, **told})
    )
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id
    sizes = {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20,
    } | config  # fmt: skip
    model = transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=size["vocab.json"], pad_token_id=pad, decoder_start_token_id=pad,
            decoder_vocab_size=size.get("target_vocab.json", size["vocab.json"]),
            share_encoder_decoder_embeddings=not separate, eos_token_id=0, forced_eos_token_id=0,
            scale_embedding=True, max_position_embeddings=512, init_std=0.1, **sizes,
        )
    ).eval()  # fmt: skip
    _teach(model, tokenizer)
    with torch.no_grad():
        model.final_logits_bias.normal_()
        model.final_logits_bias[0, pad] = 9.0  # what never to say must make a difference
    settings = model.generation_config
    settings.max_length, settings.num_beams = NEW_TOKENS + 1, BEAMS
    settings.bad_words_ids = [[pad]]
    model.half().save_pretrained(folder)
    return load(folder)


def _teach(model, tokenizer, steps=120):
    """Sentences backwards: without training a model says one word, whatever it reads."""
    texts = [text for text in prompts() if len(text) > 9 and text.replace(" ", "").isalpha()]
    rows = tokenizer(
        texts, text_target=[_backwards(text) for text in texts],
        max_length=24, truncation=True, padding=True, return_tensors="pt",
    )  # fmt: skip
    rows["labels"][rows["labels"] == tokenizer.pad_token_id] = -100
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**rows).loss.backward()
        optimizer.step()


def _backwards(text):
    return " ".join(reversed(text.split(" ")))


def load(folder):
    """Model and tokenizer of `transformers`, and what gives token ids."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    pieces = folder / "spiece.model"
    if not pieces.exists():
        tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
        return model, tokenizer, lambda text: tokenizer(text).input_ids
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=_EXTRA_IDS)
    # SentencePiece's own ids: of equally likely segmentations `tokenizers` may choose another.
    processor = sentencepiece.SentencePieceProcessor(str(pieces))
    return model, tokenizer, lambda text: [*processor.encode(text), 1]


def expected(model, tokenizer, token_ids, texts):
    """Token ids, logits, greedy texts, beams and their scores."""
    rows = []
    for text in texts:
        ids = token_ids(text)
        read = torch.tensor([ids])
        told = {"attention_mask": torch.ones_like(read), "max_length": None}
        told |= {"max_new_tokens": NEW_TOKENS, "do_sample": False}

        def written(sequence):
            return tokenizer.decode(
                sequence, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )

        start = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.no_grad():
            greedy = model.generate(read, num_beams=1, **told)
            beams = model.generate(
                read, num_beams=BEAMS, num_return_sequences=BEAMS, return_dict_in_generate=True,
                output_scores=True, **told,
            )  # fmt: skip
            logits = model(input_ids=read, decoder_input_ids=greedy[:, :-1]).logits[0, -1]
            first = model(input_ids=read, decoder_input_ids=start).logits[0, -1]
        rows.append(
            {
                "prompt": text,
                "token_ids": ids,
                "logits": [round(x, 4) for x in [*first[:4].tolist(), *logits[:4].tolist()]],
                "num_tokens": greedy.shape[1] - 1,
                "text": written(greedy[0]),
                "beams": [written(sequence) for sequence in beams.sequences],
                "scores": [round(x, 5) for x in beams.sequences_scores.tolist()],
            }
        )
    return rows


CHECKPOINTS = {
    "t5-relu": lambda folder: make_t5(folder, num_decoder_layers=1),
    "t5-gated": lambda folder: make_t5(
        folder, untied=True, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "marian-shared": lambda folder: make_marian(folder, activation_function="swish"),
    "marian-separate": lambda folder: make_marian(
        folder, separate=True, activation_function="gelu", tie_word_embeddings=False
    ),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, make in CHECKPOINTS.items():
        target = Path(sys.argv[1]) / name
        answers = expected(*make(target), prompts())
        lines = ",\n".join(json.dumps(row) for row in answers)
        (target / "expected.json").write_text(f"[\n{lines}\n]\n")
