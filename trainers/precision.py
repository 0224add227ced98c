"""Which precision a run computes in, where its recipe leaves that to the machine."""

import dataclasses
import sys
from pathlib import Path

from tfllm.trainers.devices import Device, measured_product_flops
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.run_folder import begun_recipe
from tfllm.trainers.surroundings import accelerators

AUTO = "auto"
WORTH = 1.2  # below it, what is not a product costs more than the products gain


def with_precision(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with a precision instead of "auto", which is said on stderr with the reason.

    A run that has begun goes on in its own. Accelerators compute in bfloat16; a CPU does if its
    products of bfloat16 matrices are `WORTH` times as fast, which is measured now.

    Args:
        recipe: Of the run.
        run: Its folder, whether it exists or not.
    """
    if recipe.precision != AUTO:
        return recipe
    begun = begun_recipe(run)
    if begun is not None:
        chosen, reason = begun.precision, f"as {run} was begun"
    elif accelerators():
        chosen, reason = "bfloat16", f"on {accelerators()[0]}"
    else:
        times = measured_product_flops("bfloat16") / measured_product_flops("float32")
        chosen = "bfloat16" if times > WORTH else "float32"
        reason = f"measured on this CPU: products in bfloat16 are {times:.2g} times as fast"
    print(f"precision: {chosen} ({reason}).", file=sys.stderr)
    return dataclasses.replace(recipe, precision=chosen)


def with_precision_of(recipe: Recipe, device: Device) -> Recipe:
    """The recipe with the precision that "auto" would be on a device."""
    if recipe.precision != AUTO:
        return recipe
    suits = not device.is_shared or device.flops["bfloat16"] > WORTH * device.flops["float32"]
    return dataclasses.replace(recipe, precision="bfloat16" if suits else "float32")
