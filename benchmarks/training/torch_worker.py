"""Language models in PyTorch, each in a plain training loop with its fused AdamW."""

from worker import answer_lines, arguments, random_batches

args = arguments()

import torch  # noqa: E402 - reads what `arguments` set
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(args.threads)
torch.manual_seed(0)
shape = args.shape


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, m = x.shape
        q, k, v = (
            y.view(b, t, self.heads, -1).transpose(1, 2)
            for y in self.qkv(self.norm1(x)).split(m, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(b, t, m))
        return x + self.outer(F.gelu(self.inner(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary_size, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.num_heads) for _ in range(shape.num_layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x, y):
        h = self.tokens(x) + self.positions.weight
        for block in self.blocks:
            h = block(h)
        logits = F.linear(self.norm(h), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary_size, shape.width)
        self.lstm = nn.LSTM(shape.width, shape.width, shape.num_layers, batch_first=True)

    def forward(self, x, y):
        logits = F.linear(self.lstm(self.tokens(x))[0], self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def transformers_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocabulary_size,
            n_positions=shape.length,
            n_embd=shape.width,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            use_cache=False,
        )
    )


if args.variant == "transformers":
    model = transformers_gpt2()

    # It shifts the labels itself: one position less than the others learn.
    def loss_of(x, _):
        return model(input_ids=x, labels=x).loss
else:
    model = {"gpt": GPT, "lstm": LSTM}[args.model]()
    loss_of = torch.compile(model) if args.variant == "compiled" else model

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
batches = [
    (torch.tensor(x).long(), torch.tensor(y).long())
    for x, y in zip(*random_batches(shape), strict=True)
]
made = 0


def train(steps):
    global made
    for _ in range(steps):
        x, y = batches[made % len(batches)]
        made += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            loss = loss_of(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return loss.item()


answer_lines(train)
