#pragma once
// The kernels of one instruction set. One file each, named after the op.

#include "device/cpu/kernels/kernels.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {

void linear(const LinearArgs& args, core::ThreadPool& pool);
void rms_norm(const NormArgs& args, core::ThreadPool& pool);
void layer_norm(const NormArgs& args, core::ThreadPool& pool);
void softmax(const SoftmaxArgs& args, core::ThreadPool& pool);
void unary(const ElementArgs& args, core::ThreadPool& pool);
void gated(const ElementArgs& args, core::ThreadPool& pool);
void binary(const ElementArgs& args, core::ThreadPool& pool);
void affine(const ElementArgs& args, core::ThreadPool& pool);
void convert(const ConvertArgs& args, core::ThreadPool& pool);
void embedding(const EmbeddingArgs& args, core::ThreadPool& pool);
void rope(const RopeArgs& args, core::ThreadPool& pool);
void kv_write(const KvWriteArgs& args, core::ThreadPool& pool);
std::size_t attention_scratch(const AttentionArgs& args);
std::size_t attention_partials(const AttentionArgs& args, int threads);
void attention(const AttentionArgs& args, core::ThreadPool& pool);
void mat_mul(const MatMulArgs& args, core::ThreadPool& pool);

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
