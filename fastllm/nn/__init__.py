"""What model files are made of. See ``fastllm/models/llama.py`` for a model, ``Module`` for how names come about."""

from fastllm._ops_step import EagerStep, Step, SymbolicStep
from fastllm._ops_tap import watch
from fastllm.nn.attention import Attention
from fastllm.nn.config import Config
from fastllm.nn.layers import MLP, Conv1D, Embedding, GatedMLP, LayerNorm, Linear, RMSNorm
from fastllm.nn.model import Model, record
from fastllm.nn.module import Module, ModuleList, Parameter, parameter
from fastllm.nn.registry import architecture_class, known_architectures, register
from fastllm.nn.rotary import RotaryEmbedding

__all__ = [
    "MLP",
    "Attention",
    "Config",
    "Conv1D",
    "EagerStep",
    "Embedding",
    "GatedMLP",
    "LayerNorm",
    "Linear",
    "Model",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "RotaryEmbedding",
    "Step",
    "SymbolicStep",
    "architecture_class",
    "known_architectures",
    "parameter",
    "record",
    "register",
    "watch",
]
