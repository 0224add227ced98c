"""Beam search against `transformers`, over the same torch models: texts and scores."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Beginning, Penalties, Rules, beam_search

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# 0 as the padding would make `transformers` fill with the end token.
VOCABULARY, PAD = 40, 1
# Random models of this spread have clear preferences, so that rounding does not change a rank.
SPREAD = 0.6


class TorchModel:
    """A torch model that reads all of the text at each step; for the eager loop only."""

    def __init__(self, model, sources=None):
        self.model = model
        self.sources = sources
        self.read = None

    def begin(self, prompt, lengths):
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, prompt[:, None])

    def grow(self, state, entries, length):  # noqa: ARG002 - each text has all of it
        room = tf.maximum(length - tf.shape(state)[2], 0)
        return tf.pad(state, [[0, 0], [0, 0], [0, room]])

    def step(self, new, state):
        """The state is int32[b, p, s], the texts of each row."""
        text = tf.gather(state, new.parent, batch_dims=1)
        here = tf.range(tf.shape(text)[2]) == new.positions[..., None]
        text = tf.where(here, new.token_ids[..., None], text)
        rows, beams, _ = text.shape
        at = new.positions.numpy().ravel()
        read = text.numpy().reshape(rows * beams, -1)[:, : at.max() + 1]
        logits = self._logits(torch.tensor(read.astype("int64")), beams)
        logits = logits[np.arange(len(at)), at].reshape(rows, beams, -1)
        return tf.gather(tf.constant(logits), new.wanted, batch_dims=1), text

    def _logits(self, text, beams):
        if self.sources is None:
            return self.model(text).logits.numpy()
        if self.read is None:
            self.read = self.model.get_encoder()(self.sources).last_hidden_state
        source = self.read.repeat_interleave(beams, 0)
        return self.model(encoder_outputs=(source,), decoder_input_ids=text).logits.numpy()


@pytest.fixture(scope="module", autouse=True)
def _inference():
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


def gpt2(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2,
        initializer_range=SPREAD,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def t5(seed):
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        pad_token_id=PAD, decoder_start_token_id=PAD, initializer_factor=2.0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval()


def marian(seed):
    torch.manual_seed(seed)
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=64, init_std=SPREAD, pad_token_id=PAD,
        eos_token_id=2, decoder_start_token_id=PAD, forced_eos_token_id=None,
    )  # fmt: skip
    return transformers.MarianMTModel(config).eval()


def drawn(rng):
    """The settings of `beam_search`, and the same for `generate` of `transformers`."""

    def maybe(make, off):
        return make() if rng.random() < 0.4 else off

    tokens = rng.permutation(np.arange(2, VOCABULARY)).tolist()
    rules = Rules(
        end_token_ids=tuple(tokens[: rng.integers(1, 4)]),
        suppressed_token_ids=maybe(lambda: tuple(tokens[5:9]), ()),
        forced_last_token_id=maybe(lambda: tokens[0], -1),
        min_new_tokens=maybe(lambda: int(rng.integers(1, 5)), 0),
        no_repeat_ngram_size=maybe(lambda: int(rng.integers(1, 4)), 0),
    )
    ours = {
        "num_beams": int(rng.integers(2, 6)),
        "early_stopping": [True, False, "never"][rng.integers(3)],
        "length_penalty": float(rng.choice([0.0, 0.6, 1.0, 2.0, -1.0])),
        "limit": int(rng.integers(1, 25)),
        "repetition_penalty": float(rng.choice([1.0, 1.0, 1.4, 0.7])),
        "rules": rules,
    }
    theirs = {name: ours[name] for name in ("num_beams", "early_stopping", "length_penalty")}
    theirs |= {
        "max_new_tokens": ours["limit"],
        "repetition_penalty": ours["repetition_penalty"],
        "num_return_sequences": ours["num_beams"],
        "eos_token_id": list(rules.end_token_ids),
        "min_new_tokens": rules.min_new_tokens or None,
        "no_repeat_ngram_size": rules.no_repeat_ngram_size or None,
        "bad_words_ids": [[token] for token in rules.suppressed_token_ids] or None,
        "forced_eos_token_id": rules.forced_last_token_id
        if rules.forced_last_token_id >= 0
        else None,
    }
    return ours, theirs


def run(model, prompts, settings):
    rows = len(prompts)
    lengths = [len(prompt) for prompt in prompts]
    padded = [prompt + [PAD] * (max(lengths) - len(prompt)) for prompt in prompts]
    per_row = {name: tf.fill([rows], settings[name]) for name in ("limit", "length_penalty")}
    settings = dict(settings)
    penalty = tf.fill([rows], settings.pop("repetition_penalty"))
    none = tf.zeros([rows])
    per_row["penalties"] = Penalties(penalty, none, none)
    return beam_search(model, tf.constant(padded), tf.constant(lengths), **settings | per_row)


def reference(model, ids, settings):
    """Tokens int[rows * k, n] with the prompt, and scores float[rows * k]."""
    found = model.generate(
        torch.tensor(ids), do_sample=False, pad_token_id=PAD, return_dict_in_generate=True,
        output_scores=True, **settings,
    )  # fmt: skip
    return found.sequences.numpy(), found.sequences_scores.numpy()


def assert_row(found, row, tokens, scores):
    """A row's texts are `tokens` int[k, n], padded behind the end, with these scores."""
    np.testing.assert_allclose(found.score[row], scores, rtol=2e-4, atol=2e-4)
    texts = scores > -1e7  # where no more texts are possible the rest means nothing
    for beam, theirs in enumerate(tokens[texts]):
        n = int(found.num_tokens[row, beam])
        assert found.token_ids[row, beam, :n].numpy().tolist() == theirs[:n].tolist()
        assert (theirs[n:] == PAD).all()


@pytest.mark.parametrize("seed", range(25))
def test_prompts_of_different_lengths_in_one_batch_continue_as_each_alone(seed):
    rng = np.random.default_rng(seed)
    ours, theirs = drawn(rng)
    model = gpt2(seed)
    prompts = [rng.integers(2, VOCABULARY, n).tolist() for n in rng.integers(1, 9, 4)]
    found = run(TorchModel(model), prompts, ours)
    for row, prompt in enumerate(prompts):
        tokens, scores = reference(model, [prompt], theirs)
        assert_row(found, row, tokens[:, len(prompt) :], scores)


@pytest.mark.parametrize("make", [t5, marian])
@pytest.mark.parametrize("seed", range(25))
def test_a_batch_of_sources_gives_what_a_batch_gives_there(make, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = drawn(rng)
    if seed % 2:
        first = next(t for t in range(2, VOCABULARY) if t not in ours["rules"].end_token_ids)
        ours["rules"] = ours["rules"]._replace(forced_first_token_id=first)
        theirs["forced_bos_token_id"] = first
    model = make(seed)
    sources = rng.integers(2, VOCABULARY, [4, 7])
    found = run(TorchModel(model, torch.tensor(sources)), [[PAD]] * 4, ours)
    tokens, scores = reference(model, sources, theirs)
    k = ours["num_beams"]
    for row in range(4):
        here = slice(row * k, row * k + k)
        assert_row(found, row, tokens[here, 1:], scores[here])
