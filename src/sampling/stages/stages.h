#pragma once
// The stages of the sampling chain, one file each, in the order in which transformers applies its processors:
//
//   processors, on every logit:    logit_bias, penalties (repetition, then presence and frequency), no_repeat_ngram, bad_words,
//                                  min_new_tokens, (constraint mask)
//   warpers, when sampling:        temperature, top_k, top_p, min_p, typical_p
//
// Processors see the history and change logits in place. Warpers see the candidates left and drop some; each looks at
// the distribution renormalised over what its predecessors left, as in transformers.

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/numeric.h"
#include "sampling/params.h"

namespace fastllm::sampling {

// What came before the token to be chosen.
struct History {
  std::span<const std::int32_t> tokens;  // prompt, then output
  std::size_t prompt_tokens = 0;
  std::size_t generated() const { return tokens.size() - prompt_tokens; }
};

// Counts per token id with O(1) reset: an entry counts only if its stamp is the current one.
class TokenCounts {
 public:
  explicit TokenCounts(std::size_t vocab) : stamps_(vocab, 0), counts_(vocab, 0) {}
  void begin() { ++stamp_; }
  std::uint32_t add(std::int32_t token) {  // the count with this one
    const auto index = static_cast<std::size_t>(token);
    if (stamps_[index] != stamp_) {
      stamps_[index] = stamp_;
      counts_[index] = 0;
    }
    return ++counts_[index];
  }
  std::uint32_t count(std::int32_t token) const {
    const auto index = static_cast<std::size_t>(token);
    return stamps_[index] == stamp_ ? counts_[index] : 0;
  }
  void clear(std::int32_t token) { counts_[static_cast<std::size_t>(token)] = 0; }

 private:
  std::vector<std::uint64_t> stamps_;
  std::vector<std::uint32_t> counts_;
  std::uint64_t stamp_ = 0;
};

// Tokens still possible and their logits. While `ids` is empty, entry i is token i.
struct Candidates {
  std::vector<float> logits;
  std::vector<std::int32_t> ids;
  std::vector<float> probabilities, keys, spare;  // scratch of the warpers
  std::vector<double> sums;                       // of probabilities, in blocks of kSumBlock
  std::vector<std::int32_t> picked;
  std::vector<char> keep;
  MassScratch mass;

  std::size_t size() const { return logits.size(); }
  std::int32_t id(std::size_t entry) const { return ids.empty() ? static_cast<std::int32_t>(entry) : ids[entry]; }
  float max() const;
  double softmax();                   // fills `probabilities` with exp(logit - max), unnormalised; returns their sum
  void retain_from(float threshold);  // drops entries with logits below the threshold
  void retain_kept();                 // drops entries whose `keep` is 0
  void retain_picked();               // drops entries whose index is not in `picked` (ascending)
};

// processors
void logit_bias(std::span<float> logits, const SamplingParams& params);
void penalties(std::span<float> logits, const History& history, const SamplingParams& params, TokenCounts& counts);
void no_repeat_ngram(std::span<float> logits, const History& history, int n);
void bad_words(std::span<float> logits, const History& history, const SamplingParams& params);
void min_new_tokens(std::span<float> logits, const History& history, const SamplingParams& params);
// warpers
void temperature(Candidates& candidates, float value);
void top_k(Candidates& candidates, int k);
void top_p(Candidates& candidates, float p);
void min_p(Candidates& candidates, float p);
void typical_p(Candidates& candidates, float p);

}  // namespace fastllm::sampling
