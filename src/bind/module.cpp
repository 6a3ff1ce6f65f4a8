// The Python module fastllm._core: each bound class has its own file; this one lists them.

#include "bind/bind.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native engine of fastllm. Private: use the names in `fastllm`.";
  m.attr("__version__") = FASTLLM_VERSION;
  fastllm::bind::bind_errors(m);
  fastllm::bind::bind_device(m);
  fastllm::bind::bind_tensor(m);
  fastllm::bind::bind_op(m);
  fastllm::bind::bind_graph(m);
  fastllm::bind::bind_vocab(m);
  fastllm::bind::bind_request(m);
  fastllm::bind::bind_probe(m);
  fastllm::bind::bind_engine(m);
}
