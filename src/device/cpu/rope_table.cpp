#include "device/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace fastllm::cpu {

using device::Rope;
using device::RopeLength;
using device::View;

namespace {

bool same_rotation(const Rope& a, const Rope& b) {
  return a.rotary_dim == b.rotary_dim && a.attention_factor == b.attention_factor && a.length == b.length &&
         a.base == b.base && a.factor == b.factor && a.original_max == b.original_max;
}

template <class T>
bool equal(const std::vector<T>& kept, const T* data, std::size_t size, std::int64_t stride) {
  if (kept.size() != size) return false;
  for (std::size_t i = 0; i < size; ++i)
    if (kept[i] != data[static_cast<std::int64_t>(i) * stride]) return false;
  return true;
}

template <class T>
void keep(std::vector<T>& kept, const T* data, std::size_t size, std::int64_t stride) {
  kept.resize(size);
  for (std::size_t i = 0; i < size; ++i) kept[i] = data[static_cast<std::int64_t>(i) * stride];
}

// Frequencies of a sequence stretched by dynamic NTK scaling, rounded where the published float32 code rounds.
void dynamic_frequencies(const Rope& op, std::int32_t length, std::vector<float>& to) {
  const double growth = double(op.factor) * length / op.original_max - (double(op.factor) - 1.0);
  const auto base = static_cast<float>(op.base * std::pow(growth, double(op.rotary_dim) / (op.rotary_dim - 2)));
  for (std::size_t i = 0; i < to.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(op.rotary_dim);
    to[i] = 1.0f / static_cast<float>(std::pow(double(base), double(exponent)));
  }
}

void fill(RopeTables::Table& table, core::ThreadPool& pool) {
  const std::size_t half = table.inv_freq.size();
  table.cos.resize(table.positions.size() * half);
  table.sin.resize(table.positions.size() * half);
  pool.parallel_for(static_cast<std::int64_t>(table.positions.size()), 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> stretched;
    std::int32_t stretched_for = -1;
    for (auto t = static_cast<std::size_t>(begin); t < static_cast<std::size_t>(end); ++t) {
      const float* inv_freq = table.inv_freq.data();
      if (table.op.length != RopeLength::fixed && table.lengths[t] > table.op.original_max) {
        if (table.op.length == RopeLength::long_short) {
          inv_freq = table.long_inv_freq.data();
        } else {
          if (stretched_for != table.lengths[t]) {
            stretched.resize(half);
            stretched_for = table.lengths[t];
            dynamic_frequencies(table.op, stretched_for, stretched);
          }
          inv_freq = stretched.data();
        }
      }
      const auto position = static_cast<float>(table.positions[t]);
      for (std::size_t i = 0; i < half; ++i) {
        // The angle is a float32 product, as in every float32 implementation; its cosine is then exact.
        const float angle = position * inv_freq[i];
        table.cos[t * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)) * table.op.attention_factor);
        table.sin[t * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * table.op.attention_factor);
      }
    }
  });
}

}  // namespace

const RopeTables::Table& RopeTables::get(const Rope& op, std::span<const View> in, const device::StepView* step,
                                         core::ThreadPool& pool) {
  const auto tokens = static_cast<std::size_t>(in[1].shape[0]);
  const auto* positions = static_cast<const std::int32_t*>(in[1].data);
  const auto half = static_cast<std::size_t>(op.rotary_dim / 2);
  const auto* inv_freq = static_cast<const float*>(in[2].data);
  const bool has_long = op.length == RopeLength::long_short;
  const auto* long_inv_freq = has_long ? static_cast<const float*>(in[3].data) : nullptr;
  const bool by_length = op.length != RopeLength::fixed;
  const auto length_of = [&](std::size_t t) { return step->rope_len[step->sequence_of[t]]; };

  Table* oldest = &tables_[0];
  for (Table& table : tables_) {
    bool same = table.used > 0 && same_rotation(table.op, op) &&
                equal(table.positions, positions, tokens, in[1].stride[0]) &&
                equal(table.inv_freq, inv_freq, half, in[2].stride[0]) &&
                equal(table.long_inv_freq, long_inv_freq, has_long ? half : 0, has_long ? in[3].stride[0] : 1);
    if (same && by_length)
      for (std::size_t t = 0; t < tokens && same; ++t) same = table.lengths[t] == length_of(t);
    if (same) {
      table.used = ++clock_;
      return table;
    }
    if (table.used < oldest->used) oldest = &table;
  }

  Table& table = *oldest;
  table.used = 0;  // worth nothing until it is whole
  table.op = op;
  keep(table.positions, positions, tokens, in[1].stride[0]);
  keep(table.inv_freq, inv_freq, half, in[2].stride[0]);
  keep(table.long_inv_freq, long_inv_freq, has_long ? half : 0, has_long ? in[3].stride[0] : 1);
  table.lengths.resize(by_length ? tokens : 0);
  for (std::size_t t = 0; t < table.lengths.size(); ++t) table.lengths[t] = length_of(t);
  fill(table, pool);
  table.used = ++clock_;
  return table;
}

}  // namespace fastllm::cpu
