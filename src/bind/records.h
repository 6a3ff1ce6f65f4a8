#pragma once
// Tokens that were taken from the engine and not yet made into Python objects. A display that draws hundreds of tokens
// a second needs of most of them a piece of text and a shade: making five alternatives into tuples would cost more
// than all the rest.

#include <memory>
#include <vector>

#include "bind/bind.h"
#include "engine/request.h"
#include "engine/vocab.h"

namespace fastllm::bind {

// (id, text, bytes, index, logprob | None, top, special, time_s)
py::tuple row_of(const engine::Vocab& vocab, const engine::TokenEvent& event);

// (id, text, logprob) of each alternative.
py::tuple top_of(const engine::Vocab& vocab, const std::vector<sampling::TopLogprob>& top);

// Python's TokenRecords: a sequence of such rows, each made when it is asked for.
struct TokenRecords {
  std::vector<engine::TokenEvent> events;
  std::shared_ptr<const engine::Vocab> vocab;
};

void bind_records(py::module_& m);

}  // namespace fastllm::bind
