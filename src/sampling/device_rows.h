#pragma once
// Requests in the form in which a device samples them (device/sample.h): what history makes of a request's parameters
// is worked out here, as changes to single logits.

#include <vector>

#include "device/sample.h"
#include "sampling/chain.h"
#include "sampling/params.h"
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

// Whether a device can sample this at all; what it cannot goes through Chain.
bool fits_device(const SamplingParams& params);

// Whether the row depends on which tokens were written last, and not only on how many.
bool needs_history(const SamplingParams& params);

class DeviceRows {
 public:
  explicit DeviceRows(int vocab_size) : counts_(static_cast<std::size_t>(vocab_size)) {}
  void clear();
  // A row for the token at position history.tokens.size(). Ids below 0 in the history are allowed unless
  // needs_history().
  void add(const History& history, const SamplingParams& params);
  void add_unused();  // a row whose result nobody wants
  device::SampleCall call() const { return {rows_, edits_}; }

 private:
  void add_edits(const History& history, const SamplingParams& params);

  std::vector<device::SampleRow> rows_;
  std::vector<device::SampleEdit> edits_;
  TokenCounts counts_;
};

// The device's result as Chain would give it, errors included. `history`: what came before the token.
void take(const device::SampledRow& row, const History& history, const SamplingParams& params, int vocab_size,
          Sampled& out);

}  // namespace fastllm::sampling
