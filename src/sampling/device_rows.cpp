#include "sampling/device_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "sampling/rng.h"
#include "sampling/stages/bans.h"

namespace fastllm::sampling {

namespace {
constexpr float kBanned = -std::numeric_limits<float>::infinity();
}

bool fits_device(const SamplingParams& params) {
  return params.logprobs <= device::kMostSampledTop;
}

bool needs_history(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f ||
         params.no_repeat_ngram > 0 ||
         std::ranges::any_of(params.bad_words, [](const auto& word) { return word.size() > 1; });
}

void DeviceRows::clear() {
  rows_.clear();
  edits_.clear();
}

void DeviceRows::add_unused() {
  device::SampleRow& row = rows_.emplace_back();
  row.temperature = 0.0f;
}

void DeviceRows::add(const History& history, const SamplingParams& params) {
  device::SampleRow row;
  row.temperature = params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  if (params.min_p > 0.0f) row.log_min_p = std::log(params.min_p);
  row.typical_p = params.typical_p;
  row.draw = static_cast<std::uint64_t>(uniform(params.seed, history.tokens.size()) * 0x1.0p53);
  row.logprobs = params.logprobs;
  row.raw_logprobs = params.logprobs_mode == LogprobsMode::raw;
  row.first_edit = static_cast<int>(edits_.size());
  add_edits(history, params);
  row.edits = static_cast<int>(edits_.size()) - row.first_edit;
  rows_.push_back(row);
}

// In the order of the stages, then sorted by id with that order kept.
void DeviceRows::add_edits(const History& history, const SamplingParams& params) {
  const std::size_t first = edits_.size();
  for (const auto& [id, bias] : params.logit_bias) edits_.push_back({id, 0, bias});
  const std::size_t size = history.tokens.size();
  const std::size_t window = params.penalty_window > 0 ? static_cast<std::size_t>(params.penalty_window) : size;
  const std::size_t start = size - std::min(window, size);
  if (params.repetition_penalty != 1.0f) {
    counts_.begin();
    for (const std::int32_t id : history.tokens.subspan(start)) {
      if (counts_.add(id) == 1) edits_.push_back({id, 1, params.repetition_penalty});
    }
  }
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    const auto output = history.tokens.subspan(std::max(start, history.prompt_tokens));
    counts_.begin();
    for (const std::int32_t id : output) counts_.add(id);
    for (const std::int32_t id : output) {
      const std::uint32_t count = counts_.count(id);
      if (count == 0) continue;
      edits_.push_back({id, 0, -(params.presence_penalty + params.frequency_penalty * static_cast<float>(count))});
      counts_.clear(id);
    }
  }
  const auto ban = [this](std::int32_t id) { edits_.push_back({id, 0, kBanned}); };
  each_repeated_ngram_end(history, params.no_repeat_ngram, ban);
  each_bad_word_end(history, params, ban);
  each_early_end(history, params, ban);
  std::stable_sort(edits_.begin() + static_cast<std::ptrdiff_t>(first), edits_.end(),
                   [](const device::SampleEdit& a, const device::SampleEdit& b) { return a.id < b.id; });
}

void take(const device::SampledRow& row, const History& history, const SamplingParams& params, int vocab_size,
          Sampled& out) {
  switch (row.status) {
    case device::SampleStatus::not_a_number:
    case device::SampleStatus::infinite:
      fail_not_finite(history.tokens.size(), row.status == device::SampleStatus::not_a_number);
    case device::SampleStatus::nothing_left:
      fail_nothing_left(history.tokens.size(), has_processors(history, params), static_cast<std::size_t>(vocab_size));
    case device::SampleStatus::ok:
      break;
  }
  out.id = row.id;
  out.logprob = row.logprob;
  out.top.clear();
  for (const device::RankedToken& token : row.top) out.top.push_back({token.id, token.logprob});
}

}  // namespace fastllm::sampling
