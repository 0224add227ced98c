"""CTranslate2, on its own conversion of the checkpoint, which is made in a process of its own."""

import subprocess
import sys
from pathlib import Path

from worker import answer_lines, arguments

args = arguments()
converted = Path(args.folder).with_name(f"ctranslate2-{args.precision}")


def load():
    import ctranslate2

    generates = "Generator" if _is_causal() else "Translator"
    engine = getattr(ctranslate2, generates)(
        str(converted),
        device="cpu",
        compute_type=args.precision,
        intra_threads=args.threads,
        inter_threads=1,
    )

    def go_on(request):
        done = engine.generate_batch(
            request["tokens"],
            max_length=request["new"],
            min_length=request["new"],
            beam_size=args.beams,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        return sum(len(result.sequences_ids[0]) for result in done)

    def translate(request):
        done = engine.translate_batch(
            request["tokens"],
            beam_size=args.beams,
            num_hypotheses=args.beams,
            max_decoding_length=request["new"],
            min_decoding_length=request["new"],
        )
        return sum(len(result.hypotheses[0]) for result in done)

    return go_on if generates == "Generator" else translate


def _is_causal() -> bool:
    return not (converted / "shared_vocabulary.json").exists()


if not converted.exists():
    command = [sys.executable, "-m", "ctranslate2.converters.transformers"]
    options = ["--model", args.folder, "--output_dir", str(converted)]
    subprocess.run(
        [*command, *options, "--quantization", args.precision], check=True, stdout=sys.stderr
    )
answer_lines(load)
