#pragma once
// What the engine needs of a model: run one step, give logits. graph::Program is one; tests bring others. The engine knows no file
// format, no architecture and no Python.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "device/backend.h"
#include "device/probe.h"
#include "device/sample.h"
#include "device/step.h"

namespace fastllm::engine {

struct KvSpec {  // one attention layer's cache
  int kv_heads = 0;
  int head_dim = 0;
  int v_head_dim = 0;
  int window = 0;  // > 0: only the last `window` tokens are ever read
  core::DType dtype = core::DType::f32;
};

struct StepLimits {
  int max_tokens = 0;     // T
  int max_rows = 0;       // R
  int max_sequences = 0;  // S
};

class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual int vocab_size() const = 0;      // columns of the logits
  virtual int context_length() const = 0;  // most positions it was made for
  // Whether rotations change with a sequence's length; prefix reuse must then not cross rope_original_max (see kv/).
  virtual bool length_dependent_rope() const = 0;
  virtual int rope_original_max() const { return 0; }
  virtual std::span<const KvSpec> kv_layers() const = 0;
  virtual const std::shared_ptr<device::Backend>& backend() const = 0;
  virtual std::size_t weight_bytes() const = 0;
  virtual void reserve(const StepLimits& limits) = 0;  // allocates all a step needs; no step allocates after it

  // logits [R, vocab] float32 in host memory, valid until the next call. May throw core::Error.
  // Not while a launched step is uncollected.
  virtual std::span<float> run(const device::StepView& step) = 0;

  // Steps without waiting, for models whose device samples by itself (known after reserve()):
  //
  //   launch(step)    queues a step. A token id below 0, -1 - r, is the one that row r of the sample() before drew.
  //   sample(call)    queues the sampling of the rows of the launched step, one SampleRow each.
  //   collect(out)    waits for the oldest step that was sampled and not collected.
  //
  // Each launch() is followed by its sample(); at most two steps are launched and uncollected. All may throw
  // core::Error.
  virtual bool asynchronous() const { return false; }
  virtual void launch(const device::StepView& /*step*/) {}
  virtual void sample(const device::SampleCall& /*call*/) {}
  virtual void collect(std::vector<device::SampledRow>& /*out*/) {}

  // Values that probes can name; none: this model was not made to be looked into.
  virtual std::span<const device::TapInfo> taps() const { return {}; }
  // run() with some of the sequences looked into, which may take its time.
  virtual std::span<float> run_probed(const device::StepView& step,
                                      std::span<const device::ProbedSequence> /*probed*/) {
    return run(step);
  }
};

}  // namespace fastllm::engine
