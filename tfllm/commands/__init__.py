"""The commands of `tfllm`, by what they are for."""
