"""Compiles the programs of `tpu_steps.py` for one core of a TPU, without one in the machine.

    make tpu-compile

It needs jax and libtpu, in an environment of their own: the compiler is the one of a TPU machine.
One JSON line per program: what its step needs of the memory, in bytes. It covers one core, and no
sum over replicas.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path

# libtpu asks the machine which TPU it has, unless it is told.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "CLOUD_TPU_TASK_ID": "0",
}

import numpy as np  # noqa: E402
from jax._src import compiler  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jax._src.lib import xla_client  # noqa: E402
from jax._src.lib.mlir import ir  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jaxlib import _jax  # noqa: E402

# TensorFlow writes a copy that StableHLO has no name for; this one is kept as well.
_COPY = re.compile(r"mhlo\.copy (%[\w#]+)[^:\n]*: (tensor<[^>]*>)")


def compiled(program: bytes, device):
    """A serialized HloModule, compiled for a device that only its description is there of."""
    text = _jax.mlir.hlo_to_stablehlo(program)
    with mlir.make_ir_context():
        text = ir.Module.parse(text).operation.get_asm(enable_debug_info=False)
        module = ir.Module.parse(_COPY.sub(r"stablehlo.optimization_barrier \1 : \2", text))
        options = compiler.get_compile_options(
            num_replicas=1, num_partitions=1, device_assignment=np.array([[device.id]])
        )
        return compiler.backend_compile_and_load(
            device.client, module, xla_client.DeviceList((device,)), options, []
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path, help="folder that tpu_steps.py wrote")
    parser.add_argument("--topology", default="v5e:2x2")
    args = parser.parse_args()
    device = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices[0]
    for path in sorted(args.programs.glob("*.hlo")):
        began = time.perf_counter()
        memory = compiled(path.read_bytes(), device).get_compiled_memory_stats()
        found = {
            "step": path.stem,
            "device": args.topology.partition(":")[0],
            "arguments": memory.argument_size_in_bytes,
            "of_them_aliased": memory.alias_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "output": memory.output_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
            "compiled_in_s": round(time.perf_counter() - began, 1),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
