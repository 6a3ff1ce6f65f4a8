"""Benchmarks: fastllm beside its peers, same weights, interleaved in one run: `python -m benchmarks.cpu --help`."""
