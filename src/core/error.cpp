#include "core/error.h"

namespace fastllm::core {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::internal:
      return "internal";
    case ErrorCode::corrupt_file:
      return "corrupt_file";
    case ErrorCode::unsupported_format:
      return "unsupported_format";
    case ErrorCode::unsupported_architecture:
      return "unsupported_architecture";
    case ErrorCode::missing_tensor:
      return "missing_tensor";
    case ErrorCode::out_of_memory:
      return "out_of_memory";
    case ErrorCode::device_not_available:
      return "device_not_available";
    case ErrorCode::device_lost:
      return "device_lost";
    case ErrorCode::invalid_request:
      return "invalid_request";
    case ErrorCode::invalid_config:
      return "invalid_config";
    case ErrorCode::shape_error:
      return "shape_error";
    case ErrorCode::dtype_error:
      return "dtype_error";
    case ErrorCode::context_too_long:
      return "context_too_long";
    case ErrorCode::queue_full:
      return "queue_full";
    case ErrorCode::engine_closed:
      return "engine_closed";
    case ErrorCode::engine_dead:
      return "engine_dead";
    case ErrorCode::forked_process:
      return "forked_process";
    case ErrorCode::constraint_error:
      return "constraint_error";
    case ErrorCode::capture_too_large:
      return "capture_too_large";
  }
  return "internal";
}

}  // namespace fastllm::core
