#include "graph/attrs.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace fastllm::graph {
namespace {

using core::cat;
using core::ErrorCode;
using core::fail;
using namespace device;

template <class E>
struct Names;
template <>
struct Names<Activation> {
  static constexpr std::array<const char*, 12> list{"none",    "silu", "gelu",   "gelu_tanh", "relu", "tanh",
                                                    "sigmoid", "exp",  "square", "rsqrt",     "neg",  "softcap"};
};
template <>
struct Names<BinaryKind> {
  static constexpr std::array<const char*, 6> list{"add", "sub", "mul", "div", "maximum", "minimum"};
};
template <>
struct Names<RopeLength> {
  static constexpr std::array<const char*, 3> list{"fixed", "dynamic_ntk", "long_short"};
};

// The fields of each op, by name. F is called as f("eps", op.eps).
template <class F>
void fields(Embedding& op, F&& f) {
  f("scale", op.scale);
}
template <class F>
void fields(Linear& op, F&& f) {
  f("add_residual", op.add_residual);
  f("activation", op.activation);
  f("scale", op.scale);
  f("gated", op.gated);
}
template <class F>
void fields(MatMul&, F&&) {}
template <class F>
void fields(RmsNorm& op, F&& f) {
  f("eps", op.eps);
  f("weight_offset", op.weight_offset);
}
template <class F>
void fields(AddRmsNorm& op, F&& f) {
  f("eps", op.eps);
  f("weight_offset", op.weight_offset);
}
template <class F>
void fields(LayerNorm& op, F&& f) {
  f("eps", op.eps);
}
template <class F>
void fields(Rope& op, F&& f) {
  f("rotary_dim", op.rotary_dim);
  f("interleaved", op.interleaved);
  f("attention_factor", op.attention_factor);
  f("length", op.length);
  f("base", op.base);
  f("factor", op.factor);
  f("original_max", op.original_max);
}
template <class F>
void fields(KvWrite& op, F&& f) {
  f("layer", op.layer);
}
template <class F>
void fields(RopeKvWrite& op, F&& f) {
  fields(op.rope, f);
  f("layer", op.layer);
  f("normed", op.normed);
  f("eps", op.eps);
  f("weight_offset", op.weight_offset);
}
template <class F>
void fields(Attention& op, F&& f) {
  f("layer", op.layer);
  f("scale", op.scale);
  f("window", op.window);
  f("softcap", op.softcap);
}
template <class F>
void fields(RopeAttention& op, F&& f) {
  fields(op.write, f);
  f("scale", op.attention.scale);
  f("window", op.attention.window);
  f("softcap", op.attention.softcap);
}
template <class F>
void fields(Unary& op, F&& f) {
  f("kind", op.kind);
  f("param", op.param);
}
template <class F>
void fields(Binary& op, F&& f) {
  f("kind", op.kind);
}
template <class F>
void fields(Affine& op, F&& f) {
  f("scale", op.scale);
  f("shift", op.shift);
}
template <class F>
void fields(GatedActivation& op, F&& f) {
  f("activation", op.activation);
}
template <class F>
void fields(Softmax&, F&&) {}
template <class F>
void fields(SelectRows&, F&&) {}
template <class F>
void fields(Copy&, F&&) {}

std::string join(const auto& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

class Reader {
 public:
  Reader(std::string_view kind, const AttrMap& attrs) : kind_(kind), attrs_(attrs) {}

  template <class T>
  void operator()(const char* name, T& field) {
    known_.insert(name);
    const auto found = attrs_.find(name);
    if (found == attrs_.end()) return;
    const Attr& value = found->second;
    if constexpr (std::is_same_v<T, bool>) {
      const bool* flag = std::get_if<bool>(&value);
      if (!flag) wrong(name, "a bool");
      field = *flag;
    } else if constexpr (std::is_same_v<T, int>) {
      const std::int64_t* number = std::get_if<std::int64_t>(&value);
      if (!number) wrong(name, "an int");
      if (*number < 0 || *number > std::numeric_limits<int>::max())
        fail(ErrorCode::invalid_request,
             cat("[", kind_, "] ", name, " is ", *number, ", outside 0..", std::numeric_limits<int>::max(), "."));
      field = static_cast<int>(*number);
    } else if constexpr (std::is_same_v<T, float>) {
      if (const double* number = std::get_if<double>(&value))
        field = static_cast<float>(*number);
      else if (const std::int64_t* whole = std::get_if<std::int64_t>(&value))
        field = static_cast<float>(*whole);
      else
        wrong(name, "a float");
      if (!std::isfinite(field))
        fail(ErrorCode::invalid_request, cat("[", kind_, "] ", name, " is ", field, ", which is no finite number."));
    } else if constexpr (std::is_same_v<T, core::DType>) {
      const std::string* text = std::get_if<std::string>(&value);
      if (!text) wrong(name, "the name of a dtype");
      const auto dtype = core::dtype_from_name(*text);
      if (!dtype) fail(ErrorCode::dtype_error, cat("[", kind_, "] there is no dtype '", *text, "'."));
      field = *dtype;
    } else {
      const std::string* text = std::get_if<std::string>(&value);
      if (!text) wrong(name, "a string");
      const auto& names = Names<T>::list;
      for (std::size_t i = 0; i < names.size(); ++i)
        if (*text == names[i]) {
          field = static_cast<T>(i);
          return;
        }
      fail(ErrorCode::invalid_request, cat("[", kind_, "] ", name, " is '", *text, "'."),
           "Known: " + join(names) + ".");
    }
  }

  void done() const {
    for (const auto& [name, value] : attrs_)
      if (!known_.contains(name))
        fail(ErrorCode::invalid_request, cat("[", kind_, "] has no attribute '", name, "'."),
             known_.empty() ? "It has none." : "Known: " + join(known_) + ".");
  }

 private:
  [[noreturn]] void wrong(const char* name, const char* wanted) const {
    fail(ErrorCode::invalid_request, cat("[", kind_, "] ", name, " must be ", wanted, "."));
  }
  std::string kind_;
  const AttrMap& attrs_;
  std::set<std::string> known_;
};

class Printer {
 public:
  template <class T>
  void operator()(const char* name, const T& field) {
    entries_.emplace_back(name, show(field));
  }
  std::vector<std::pair<std::string, std::string>> take() { return std::move(entries_); }

 private:
  static std::string show(bool value) { return value ? "true" : "false"; }
  static std::string show(int value) { return std::to_string(value); }
  static std::string show(float value) {  // the shortest text that reads back as the same float
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    return {text.data(), end};
  }
  template <class E>
    requires std::is_enum_v<E>
  static std::string show(E value) {
    return Names<E>::list[static_cast<std::size_t>(value)];
  }
  std::vector<std::pair<std::string, std::string>> entries_;
};

template <std::size_t... I>
std::vector<Op> all_ops(std::index_sequence<I...>) {
  return {Op(std::in_place_index<I>)...};
}
const std::vector<Op>& defaults() {
  static const std::vector<Op> ops = all_ops(std::make_index_sequence<std::variant_size_v<Op>>());
  return ops;
}

}  // namespace

std::vector<std::string> op_kinds() {
  std::vector<std::string> names;
  for (const Op& op : defaults()) names.emplace_back(op_name(op));
  return names;
}

OpSpec parse_op(std::string_view kind, const AttrMap& attrs) {
  for (const Op& op : defaults()) {
    if (kind != op_name(op)) continue;
    OpSpec spec{.op = op};
    Reader reader(kind, attrs);
    std::visit([&](auto& typed) { fields(typed, reader); }, spec.op);
    if (std::holds_alternative<Linear>(op)) reader("has_bias", spec.has_bias);
    if (std::holds_alternative<Copy>(op)) reader("dtype", spec.copy_dtype);
    reader.done();
    return spec;
  }
  fail(ErrorCode::invalid_request, cat("[op] there is no op '", kind, "'."), "Known: " + join(op_kinds()) + ".");
}

std::string attrs_text(const Op& op) {
  Op actual = op;
  Op standard = defaults()[op.index()];
  Printer now;
  Printer then;
  std::visit([&](auto& typed) { fields(typed, now); }, actual);
  std::visit([&](auto& typed) { fields(typed, then); }, standard);
  const auto values = now.take();
  const auto usual = then.take();
  std::string out;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i].second != usual[i].second || values[i].first == "layer" || values[i].first == "kind" ||
        values[i].first == "eps")
      out += (out.empty() ? "" : " ") + values[i].first + "=" + values[i].second;
  return out;
}

}  // namespace fastllm::graph
