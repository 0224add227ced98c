"""Two processes of one run on this machine, as `--strategy multiworker` takes them."""

import json
import socket


def clusters() -> list[str]:
    """`TF_CONFIG` for each of two workers, at free ports of 127.0.0.1."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}})
        for worker in range(2)
    ]
