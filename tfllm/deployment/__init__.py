"""What runs exports on the stock server: files for Docker Compose, Kubernetes, Prometheus."""

from tfllm.deployment.folder import write_deployment

__all__ = ["write_deployment"]
