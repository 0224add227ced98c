"""The LSTM by torch: torch.nn.LSTM reads the prompt, a loop of Python runs its cells."""

from pathlib import Path

from worker import answer_lines, arguments

args = arguments()


def load():
    import numpy as np
    import torch

    torch.set_num_threads(args.threads)
    weights = np.load(Path(args.folder) / "weights.npz")
    table = torch.tensor(weights["embeddings"])
    num_layers = sum(name.startswith("bias") for name in weights)
    units = len(weights["recurrent_kernel_0"])
    lstm = torch.nn.LSTM(table.shape[1], units, num_layers, batch_first=True)
    # A step through torch.nn.LSTM is several times slower: oneDNN packs its weights each time.
    cells = [torch.nn.LSTMCell(units if i else table.shape[1], units) for i in range(num_layers)]
    with torch.no_grad():
        for i in range(num_layers):
            # The gates have the same order; torch has the transposed matrices and two biases.
            getattr(lstm, f"weight_ih_l{i}").copy_(torch.tensor(weights[f"kernel_{i}"].T))
            getattr(lstm, f"weight_hh_l{i}").copy_(torch.tensor(weights[f"recurrent_kernel_{i}"].T))
            getattr(lstm, f"bias_ih_l{i}").copy_(torch.tensor(weights[f"bias_{i}"]))
            getattr(lstm, f"bias_hh_l{i}").zero_()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(cells[i], name, getattr(lstm, f"{name}_l{i}"))

    def write(request):
        with torch.inference_mode():
            x, (h, c) = lstm(table[torch.tensor(request["ids"])])
            x, states, written = x[:, -1], list(zip(h, c, strict=True)), []
            while True:
                written.append((x @ table.T).argmax(-1))
                if len(written) == request["new"]:
                    return torch.stack(written).numel()
                x = table[written[-1]]
                for i, cell in enumerate(cells):
                    states[i] = cell(x, states[i])
                    x = states[i][0]

    return write


answer_lines(load)
