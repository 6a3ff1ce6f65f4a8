#pragma once
// A request with the step thread's side of it: between engine.cpp and steps.cpp alone.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "engine/engine.h"

namespace fastllm::engine {

struct Engine::Active : Sequence {
  Active(std::shared_ptr<Request> given, const std::shared_ptr<const Vocab>& vocab)
      : request(std::move(given)),
        detokenizer(vocab, request->spec.params.stop,
                    {request->spec.params.include_stop, request->spec.params.skip_special_tokens}) {}
  std::shared_ptr<Request> request;
  Detokenizer detokenizer;
  Clock::time_point first_scheduled{}, first_token{};
  std::variant<std::monostate, std::string, std::int32_t> stop;  // what ended the text
  int steps = 0;
  int in_flight = 0;  // launched steps that hold a pointer to it
  bool started = false;  // it was in a step, so cancel() leaves its end to the step thread
  bool prompt_ready = false;
  bool ended = false;
};

}  // namespace fastllm::engine
