// The kernels of this instruction set, by name.
#include "device/cpu/kernels/table.h"

#define FASTLLM_STRING(x) #x
#define FASTLLM_SHOWN(x) FASTLLM_STRING(x)

namespace fastllm::cpu::FASTLLM_ISA_NS {

const KernelTable kernel_table{
    .isa = FASTLLM_SHOWN(FASTLLM_ISA),
    .linear = &linear,
    .rms_norm = &rms_norm,
    .layer_norm = &layer_norm,
    .softmax = &softmax,
    .unary = &unary,
    .gated = &gated,
    .binary = &binary,
    .affine = &affine,
    .convert = &convert,
    .embedding = &embedding,
    .rope = &rope,
    .kv_write = &kv_write,
    .attention_scratch = &attention_scratch,
    .attention_partials = &attention_partials,
    .attention = &attention,
    .mat_mul = &mat_mul,
};

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
