"""File formats: lazily mapped tensors in. One format a file; every fault is a typed error before anything runs."""

from fastllm.formats.checkpoint import Checkpoint, check_vocabulary, open_checkpoint
from fastllm.formats.rope import RopeConfig, rope_config
from fastllm.formats.safetensors import SafetensorsFile, open_safetensors
from fastllm.formats.source import TensorSource

__all__ = [
    "Checkpoint",
    "RopeConfig",
    "SafetensorsFile",
    "TensorSource",
    "check_vocabulary",
    "open_checkpoint",
    "open_safetensors",
    "rope_config",
]
