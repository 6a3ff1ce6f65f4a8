#pragma once
// Passes over a row of logits (50k to 260k floats), written so that the compiler vectorises them for the baseline
// instruction set. Sums run in a fixed order: the same row gives the same bits on every call.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fastllm::sampling {

struct Extremes {
  float max = 0.0f;
  std::int32_t argmax = 0;  // the lowest id among equals
  bool has_nan = false;
};
Extremes extremes(std::span<const float> x);

// out[i] = exp(x[i] - shift), for x[i] <= shift; relative error below 2e-7, 0 below exp(-87). Returns the sum. out may
// be x. `blocks`, if given, receives the sums of kSumBlock entries each: the total is their sum.
constexpr std::size_t kSumBlock = 1024;
double exp_shifted(std::span<const float> x, float shift, std::span<float> out, std::vector<double>* blocks = nullptr);

void divide(std::span<float> x, float by);
void subtract_from(float value, std::span<const float> x, std::span<float> out);  // out[i] = value - x[i]
double dot(std::span<const float> a, std::span<const float> b);  // in blocks, as exp_shifted sums

// The indices of entries >= threshold, ascending.
void indices_from(std::span<const float> x, float threshold, std::vector<std::int32_t>& out);

// log(sum(exp(x))) with `max` = the largest of x.
double log_sum_exp(std::span<const float> x, float max, std::vector<float>& scratch);

// The k-th largest value (k from 1 to size).
float kth_largest(std::span<const float> x, int k, std::vector<float>& scratch);

struct Ranked {
  float value;
  std::int32_t index;
};
// The k largest, best first; equals by lower index. k is clipped to the size.
void largest(std::span<const float> x, int k, std::vector<Ranked>& out);

// Which entries hold `target` of the mass when taken by ascending key (keys >= 0; equal keys by lower index)? An entry
// is taken while the mass before it is < target; the first always is. keep[i] is set to 1 or 0. `sum` is the total
// mass.
struct MassScratch {
  std::vector<std::int32_t> bucket;  // of each entry
  std::vector<double> bucket_mass;
  std::vector<Ranked> boundary;
};
void keep_mass(std::span<const float> keys, std::span<const float> mass, double target, std::span<char> keep,
               MassScratch& scratch);

}  // namespace fastllm::sampling
