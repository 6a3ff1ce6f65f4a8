// Runner::run_probed: a step in which some sequences are looked into. The others run first, on the plain model, exactly
// as without company; the probed ones follow on a model that keeps what can be named. Both write the same cache.

#include <algorithm>
#include <bit>

#include "engine/probe.h"
#include "engine/runner.h"

namespace fastllm::engine {

namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

int rows_of(std::span<const Work> work) {
  int rows = 0;
  for (const Work& piece : work) rows += piece.rows();
  return rows;
}

// Enough for this step, in powers of two, so that the model's memory is planned anew only a few times.
int rounded(int wanted, int most) {
  return std::min(static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(wanted, 1)))), most);
}

}  // namespace

bool Runner::probed(std::span<const Work> work) {
  return std::ranges::any_of(work, [](const Work& piece) { return piece.sequence->probe != nullptr; });
}

std::span<float> Runner::run_probed(std::span<const Work> work) {
  const std::size_t vocab = at(model_->vocab_size());
  gathered_.resize(at(rows_of(work)) * vocab);
  std::vector<bool> done(work.size(), false);
  const auto run_some = [&](auto&& belongs, auto&& run) {
    std::vector<Work> some;
    for (std::size_t i = 0; i < work.size(); ++i)
      if (!done[i] && belongs(work[i])) some.push_back(work[i]);
    if (some.empty()) return;
    const std::span<const float> logits = run(std::span<const Work>(some));
    for (std::size_t i = 0, to = 0, from = 0; i < work.size(); ++i) {
      const std::size_t count = at(work[i].rows()) * vocab;
      if (!done[i] && belongs(work[i])) {
        if (from + count <= logits.size()) std::copy_n(logits.data() + from, count, gathered_.data() + to);
        from += count;
        done[i] = true;
      }
      to += count;
    }
  };
  run_some([](const Work& piece) { return piece.sequence->probe == nullptr; },
           [&](std::span<const Work> some) -> std::span<const float> { return model_->run(lay_out(some)); });
  for (std::size_t i = 0; i < work.size(); ++i) {  // one model after the other; nearly always there is one
    if (done[i]) continue;
    const std::shared_ptr<StepModel> model = work[i].sequence->probe->model();
    run_some([&](const Work& piece) { return piece.sequence->probe && piece.sequence->probe->model() == model; },
             [&](std::span<const Work> some) { return run_probes(*model, some); });
  }
  return gathered_;
}

std::span<const float> Runner::run_probes(StepModel& model, std::span<const Work> work) {
  int tokens = 0;
  std::vector<device::ProbedSequence> probes;
  for (std::size_t s = 0; s < work.size(); ++s) {
    tokens += work[s].count;
    probes.push_back({static_cast<int>(s), work[s].sequence->probe});
  }
  const int rows = rows_of(work);
  try {
    model.reserve({rounded(tokens, limits_.max_tokens), rounded(rows, limits_.max_rows),
                   rounded(static_cast<int>(work.size()), limits_.max_sequences)});
  } catch (const core::Error& error) {  // no room for a second model's buffers: the others go on
    for (const Work& piece : work) piece.sequence->probe->fail(error);
    return {};
  }
  const std::span<float> logits = model.run_probed(lay_out(work), probes);
  std::size_t row = 0;
  for (const Work& piece : work) {
    const std::size_t count = at(piece.rows()) * at(model.vocab_size());
    if (count) piece.sequence->probe->pass_logits(piece.first_row, logits.subspan(row, count));
    piece.sequence->probe->finish_step(piece.start + piece.count, piece.sequence->tokens);
    row += count;
  }
  return logits;
}

}  // namespace fastllm::engine
