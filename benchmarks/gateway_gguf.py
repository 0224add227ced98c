r"""The model of gateway.py as a file for llama.cpp, to serve it beside the gateway.

    pip install gguf
    python benchmarks/gateway_gguf.py --out gateway

The same weights and the same tokens. Matrices are in Q8_0, eight bits and a scale for each 32
weights, which is what llama.cpp has for int8; positions, norms and biases in float32, as there.
Prints the file's name.

llama.cpp's own convert_hf_to_gguf.py takes only the tokenizers that it has a list of. This is none
of them: its vocabulary is as large as GPT-2's, but no merge is of letters.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gguf
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from streaming import programs

from tfllm.huggingface import gpt2

_KEPT = "position_embd.weight"  # looked up by row and added, as llama-quantize leaves it
_OF_CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # [in, out] in GPT-2's files


def write(model, path: Path) -> None:
    """One file of a GPT whose tokenizer is of byte pairs."""
    config, tensors = gpt2.write(model)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_tokenizer(model.preprocessor.tokenizer, writer)

    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["n_layer"])
    for name, array in tensors:
        to = theirs.get_name(name, try_suffixes=(".weight", ".bias"))
        if name.endswith(_OF_CONV1D):
            array = array.T.copy()
        kind = GGMLQuantizationType.F32
        if array.ndim == 2 and to != _KEPT:
            kind = GGMLQuantizationType.Q8_0
            array = gguf.quantize(array, kind)
        writer.add_tensor(to, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(tokenizer, writer: GGUFWriter) -> None:
    by_id = sorted(tokenizer.vocabulary, key=tokenizer.vocabulary.__getitem__)
    control = {token.text for token in tokenizer.added_tokens}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(by_id)
    writer.add_token_types(
        [TokenType.CONTROL if token in control else TokenType.NORMAL for token in by_id]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder that gateway.py has")
    parser.add_argument("--shape", choices=("gpt2-small", "6x384"), default="gpt2-small")
    args = parser.parse_args()
    path = args.out / f"{args.shape}.Q8_0.gguf"
    write(programs.letters(args.out / args.shape, args.shape), path)
    print(path)


if __name__ == "__main__":
    main()
