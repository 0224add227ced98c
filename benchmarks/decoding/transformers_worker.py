"""`generate` of Hugging Face transformers, on torch."""

from worker import answer_lines, arguments

args = arguments()


def load():
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    config = transformers.AutoConfig.from_pretrained(args.folder)
    kind = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        args.folder, dtype=getattr(torch, args.precision)
    )
    model.eval()

    def write(request):
        ids = torch.tensor(request["ids"])
        with torch.inference_mode():
            done = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request["new"],
                min_new_tokens=request["new"],
                num_beams=args.beams,
                num_return_sequences=args.beams,
                do_sample=False,
                max_length=None,
                pad_token_id=0,
            )
        read = 1 if config.is_encoder_decoder else ids.shape[1]
        return (done.shape[1] - read) * len(ids)

    return write


answer_lines(load)
