"""What runs exports on the stock server: the files for Docker Compose, Kubernetes and Prometheus."""

from tfllm.deployment.folder import write_deployment

__all__ = ["write_deployment"]
