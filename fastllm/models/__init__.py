"""The architectures, one file each. Importing this package registers them by their names in config.json."""

from fastllm.models import gemma2, gemma3, gpt2, llama, mistral, phi3, qwen2, qwen3

__all__ = ["gemma2", "gemma3", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3"]
