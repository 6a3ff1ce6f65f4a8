#pragma once
// The scalar references: every op of device/op.h in plain loops over strided views of any dtype, accumulating in
// double. They are the oracle that the vectorised kernels are tested against, and what runs where no kernel fits (odd
// layouts and dtypes). Compiled once, without instruction-set flags and without contraction of a * b + c.

#include <span>

#include "device/backend.h"
#include "device/op.h"
#include "device/step.h"

namespace fastllm::cpu {
class CpuLinear;
}

namespace fastllm::cpu::reference {

using Views = std::span<const device::View>;

void embedding(const device::Embedding& op, Views in, Views out);
void linear(const device::Linear& op, const CpuLinear& weight, Views in, Views out);
void mat_mul(const device::MatMul& op, Views in, Views out);
void rms_norm(const device::RmsNorm& op, Views in, Views out);
void add_rms_norm(const device::AddRmsNorm& op, Views in, Views out);
void layer_norm(const device::LayerNorm& op, Views in, Views out);
void rope(const device::Rope& op, Views in, Views out, const device::StepView* step);
void kv_write(const device::KvWrite& op, Views in, const device::StepView& step);
void attention(const device::Attention& op, Views in, Views out, const device::StepView& step);
void unary(const device::Unary& op, Views in, Views out);
void binary(const device::Binary& op, Views in, Views out);
void affine(const device::Affine& op, Views in, Views out);
void gated_activation(const device::GatedActivation& op, Views in, Views out);
void softmax(const device::Softmax& op, Views in, Views out);
void select_rows(const device::SelectRows& op, Views in, Views out, const device::StepView* step);
void copy(const device::Copy& op, Views in, Views out);

// act(x), and softcap with its parameter.
double activate(device::Activation kind, double x, double param = 0.0);

}  // namespace fastllm::cpu::reference
