"""The sizes that benchmarks/decode.py and benchmarks/load.py know, and what a step reads of each.

The standard library is enough for this file.
"""

from typing import NamedTuple

# What one weight takes where a matrix is multiplied.
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class Shape(NamedTuple):
    """One architecture in one size.

    Attributes:
        family: gpt, marian, t5 or lstm.
        vocabulary_size: v; the table is shared by input and output, and by source and target.
        num_layers: Of the encoder, and of the decoder.
        hidden_dim: m.
        num_heads: h; 0 for the LSTM.
        intermediate_dim: f; 0 for the LSTM.
        beams: Of the search that is measured; 1 = greedy.
        new: Tokens that are written, unless the command says otherwise.
        batches: Rows per call, unless the command says otherwise.
        max_sequence_length: Tokens of a prompt and its continuation, or of a source, at most.
    """

    family: str
    vocabulary_size: int
    num_layers: int
    hidden_dim: int
    num_heads: int = 0
    intermediate_dim: int = 0
    beams: int = 1
    new: int = 64
    batches: tuple[int, ...] = (1, 8, 32)
    max_sequence_length: int = 1024

    @property
    def translates(self) -> bool:
        """Whether there is an encoder."""
        return self.family in ("marian", "t5")

    def weights_per_token(self, new: int) -> float:
        """Numbers of matrices that are read for each token of one row.

        The decoder's are read at each step, whatever the number of beams; those of the encoder,
        and the keys and values of what it read, once for all `new` tokens. Rows that are looked
        up in a table, norms and biases are not counted.
        """
        m, f, layers = self.hidden_dim, self.intermediate_dim, self.num_layers
        head = self.vocabulary_size * m
        if self.family == "lstm":
            return layers * 8 * m * m + head
        block = 4 * m * m + 2 * m * f
        if not self.translates:
            return layers * block + head
        once = layers * (block + 2 * m * m)
        return layers * (block + 2 * m * m) + head + once / new


SHAPES = {
    "gpt2-small": Shape("gpt", 50257, 12, 768, 12, 3072),
    "6x384": Shape("gpt", 8000, 6, 384, 6, 1536),
    "marian": Shape("marian", 58101, 6, 512, 8, 2048, 4, 32, (1, 8), 512),
    "t5-small": Shape("t5", 32128, 6, 512, 8, 2048, 4, 32, (1, 8), 512),
    "lstm": Shape("lstm", 8000, 2, 512),
}
