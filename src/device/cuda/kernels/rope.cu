// rope, kv_write, and both for a whole layer in one launch (rope_kv_write). rope: rotary position embedding (Su et al.
// 2021), half-split or interleaved pairs, and kv_write: this step's keys and values into the paged cache. Angles are
// float32 products as in the reference, reduced accurately (sinf, cosf; not the fast intrinsics). Whole 16-bit heads of
// 64, 128 and 256 channels go 16 bytes at a time.

#include "device/cuda/fp8.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/rope.cuh"

namespace fastllm::cuda {
namespace {

template <class T>
__global__ void rope_kernel(device::Rope op, KView x, KView out, const std::int32_t* positions, const float* inv_freq,
                            const float* long_inv_freq, const std::int32_t* sequence_of, const std::int32_t* rope_len) {
  const int token = blockIdx.x;
  const int half = op.rotary_dim / 2;
  const int heads = static_cast<int>(x.shape[1]);
  const int head_dim = static_cast<int>(x.shape[2]);
  const int length = op.length == device::RopeLength::fixed ? 0 : rope_len[sequence_of[token]];
  const float position = static_cast<float>(positions[token]);
  const T* in = static_cast<const T*>(x.data) + token * x.stride[0];
  T* to = static_cast<T*>(out.data) + token * out.stride[0];
  for (int e = threadIdx.x; e < heads * half; e += blockDim.x) {
    const int head = e / half;
    const int i = e % half;
    float sine;
    float cosine;
    sincosf(position * frequency(op, inv_freq, long_inv_freq, i, length), &sine, &cosine);
    sine *= op.attention_factor;
    cosine *= op.attention_factor;
    const int first = op.interleaved ? 2 * i : i;
    const int second = op.interleaved ? 2 * i + 1 : i + half;
    const float a = to_float(in[head * x.stride[1] + first]);
    const float b = to_float(in[head * x.stride[1] + second]);
    to[head * out.stride[1] + first] = from_float<T>(a * cosine - b * sine);
    to[head * out.stride[1] + second] = from_float<T>(b * cosine + a * sine);
  }
  if (to == in) return;
  const int rest = head_dim - op.rotary_dim;
  for (int e = threadIdx.x; e < heads * rest; e += blockDim.x) {
    const int head = e / rest;
    const int i = op.rotary_dim + e % rest;
    to[head * out.stride[1] + i] = in[head * x.stride[1] + i];
  }
}

template <class T, class C>
__global__ void kv_write_kernel(KView in, C* cache, int kv_heads, int head_dim, int block_tokens,
                                const std::int64_t* slots) {
  const int token = blockIdx.x;
  const std::int64_t block = slots[token] / block_tokens;
  const std::int64_t offset = slots[token] % block_tokens;
  const T* from = static_cast<const T*>(in.data) + token * in.stride[0];
  for (int e = threadIdx.x; e < kv_heads * head_dim; e += blockDim.x) {
    const int head = e / head_dim;
    const int i = e % head_dim;
    cache[((block * kv_heads + head) * block_tokens + offset) * head_dim + i] =
        from_float<C>(to_float(from[head * in.stride[1] + i]));
  }
}

// rope_kv_write: a block takes some heads of one token and works out the token's angles once; its warps take heads in
// turn, first the query heads, then the key heads, then the value heads.
template <class T, class C>
__global__ void __launch_bounds__(128) rope_kv_write_kernel(RopeKv r, int heads_per_block) {
  __shared__ float2 turns[kMostPairs];  // cosine and sine
  let_next_start();
  wait_for_previous();
  const int token = blockIdx.x;
  const int lane = threadIdx.x % 32;
  const int q_heads = static_cast<int>(r.q.shape[1]);
  const int kv_heads = static_cast<int>(r.k.shape[1]);
  for (int i = threadIdx.x; i < r.op.rope.rotary_dim / 2; i += blockDim.x) turns[i] = turn_of(r, token, i);
  __syncthreads();
  const std::int64_t slot = r.slots[token];
  const std::int64_t block = slot / r.block_tokens * kv_heads;
  const std::int64_t offset = slot % r.block_tokens;
  const int end = min(static_cast<int>(blockIdx.y + 1) * heads_per_block, q_heads + 2 * kv_heads);
  for (int index = blockIdx.y * heads_per_block + threadIdx.x / 32; index < end; index += 4) {
    if (index >= q_heads + kv_heads) {
      const int head = index - q_heads - kv_heads;
      const int dim = static_cast<int>(r.v.shape[2]);
      const T* from = static_cast<const T*>(r.v.data) + token * r.v.stride[0] + head * r.v.stride[1];
      C* to = static_cast<C*>(r.v_cache) + ((block + head) * r.block_tokens + offset) * dim;
      for (int i = lane; i < dim; i += 32) to[i] = from_float<C>(to_float(from[i]));
      continue;
    }
    const bool is_key = index >= q_heads;
    const int head = is_key ? index - q_heads : index;
    const KView& x = is_key ? r.k : r.q;
    const int dim = static_cast<int>(x.shape[2]);
    const T* from = static_cast<const T*>(x.data) + token * x.stride[0] + head * x.stride[1];
    C* cached = static_cast<C*>(r.k_cache) + ((block + head) * r.block_tokens + offset) * dim;
    T* turned = static_cast<T*>(r.out.data) + token * r.out.stride[0] + head * r.out.stride[1];
    turn_head(r, from, dim, is_key ? r.k_norm : r.q_norm, turns, [&](int i, T value) {
      if (is_key)
        cached[i] = from_float<C>(to_float(value));
      else
        turned[i] = value;
    });
  }
}

// Eight numbers as codes of a float8 cache.
template <class T>
__device__ inline uint2 codes_of(const Eight<T>& numbers) {
  const auto four = [&](int first) {
    std::uint32_t word = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      word |= static_cast<std::uint32_t>(from_float<E4m3>(to_float(numbers.v[first + j])).bits) << (8 * j);
    return word;
  };
  return {four(0), four(4)};
}

// The same for heads without a norm that turn whole, in halves, into a cache of their own 16-bit dtype or of float8: kLanes
// threads take a head, 8 channels of each half. (A norm's sum would come out in another order than where decode attention turns
// heads itself.)
template <class T, class C, int kLanes>
__global__ void __launch_bounds__(128) rope_kv_write_wide_kernel(RopeKv r, int heads_per_block) {
  constexpr int kHalf = kLanes * 8;
  __shared__ __align__(16) float cosines[kHalf];
  __shared__ __align__(16) float sines[kHalf];
  let_next_start();
  wait_for_previous();
  const int token = blockIdx.x;
  const int q_heads = static_cast<int>(r.q.shape[1]);
  const int kv_heads = static_cast<int>(r.k.shape[1]);
  for (int i = threadIdx.x; i < kHalf; i += blockDim.x) {
    const float2 turn = turn_of(r, token, i);
    cosines[i] = turn.x;
    sines[i] = turn.y;
  }
  __syncthreads();
  const std::int64_t slot = r.slots[token];
  const std::int64_t block = slot / r.block_tokens * kv_heads;
  const std::int64_t offset = slot % r.block_tokens;
  const int at = threadIdx.x % kLanes * 8;
  const int end = min(static_cast<int>(blockIdx.y + 1) * heads_per_block, q_heads + 2 * kv_heads);
  for (int first = blockIdx.y * heads_per_block; first < end; first += 128 / kLanes) {
    const int mine = first + static_cast<int>(threadIdx.x) / kLanes;
    const int index = min(mine, end - 1);  // spare threads follow the last head, but store nothing: it turns in place
    const bool is_query = index < q_heads;
    const bool is_key = !is_query && index < q_heads + kv_heads;
    const int head = is_query ? index : is_key ? index - q_heads : index - q_heads - kv_heads;
    const KView& x = is_query ? r.q : is_key ? r.k : r.v;
    const T* from = static_cast<const T*>(x.data) + token * x.stride[0] + head * x.stride[1] + at;
    T* to = is_query ? static_cast<T*>(r.out.data) + token * r.out.stride[0] + head * r.out.stride[1] + at
                     : static_cast<T*>(is_key ? r.k_cache : r.v_cache) +
                           ((block + head) * r.block_tokens + offset) * (2 * kHalf) + at;
    Eight<T> low = *reinterpret_cast<const Eight<T>*>(from);
    Eight<T> high = *reinterpret_cast<const Eight<T>*>(from + kHalf);
    if (is_query || is_key) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float a = to_float(low.v[j]);
        const float b = to_float(high.v[j]);
        low.v[j] = from_float<T>(a * cosines[at + j] - b * sines[at + j]);
        high.v[j] = from_float<T>(b * cosines[at + j] + a * sines[at + j]);
      }
    }
    if (mine >= end) continue;
    if constexpr (kIsCode<C>) {
      if (!is_query) {
        C* codes = static_cast<C*>(is_key ? r.k_cache : r.v_cache) +
                   ((block + head) * r.block_tokens + offset) * (2 * kHalf) + at;
        *reinterpret_cast<uint2*>(codes) = codes_of(low);
        *reinterpret_cast<uint2*>(codes + kHalf) = codes_of(high);
        continue;
      }
    }
    *reinterpret_cast<Eight<T>*>(to) = low;
    *reinterpret_cast<Eight<T>*>(to + kHalf) = high;
  }
}

// False, and nothing was launched: not the dtype, size or alignment for it.
bool launch_wide(const Context& c, const RopeKv& r, core::DType cache, int tokens, unsigned heads) {
  const std::int64_t dim = r.q.shape[2];
  const auto wide = [&](const KView& v) {
    return v.dtype == r.q.dtype && v.shape[2] == dim && v.stride[2] == 1 && v.stride[0] % 8 == 0 &&
           v.stride[1] % 8 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
  };
  const bool coded = cache == core::DType::f8_e4m3;
  if (!core::is_half(r.q.dtype) || !(coded || r.q.dtype == cache) || r.op.normed || r.op.rope.interleaved ||
      r.op.rope.rotary_dim != dim || !wide(r.q) || !wide(r.k) || !wide(r.v) || !wide(r.out) ||
      (dim != 64 && dim != 128 && dim != 256))
    return false;
  // Few tokens need many blocks; many need their angles but once.
  const unsigned each = tokens >= 2 * c.multiprocessors ? heads : 2048 / static_cast<unsigned>(dim);
  const auto start = [&](auto kernel) {
    launch(c, kernel, dim3(static_cast<unsigned>(tokens), (heads + each - 1) / each), 128, 0, 1, r,
           static_cast<int>(each));
  };
  const auto run = [&](auto t, auto u) {
    using T = typename decltype(t)::type;
    using C = typename decltype(u)::type;
    if (dim == 64) return start(&rope_kv_write_wide_kernel<T, C, 4>);
    if (dim == 128) return start(&rope_kv_write_wide_kernel<T, C, 8>);
    start(&rope_kv_write_wide_kernel<T, C, 16>);
  };
  const auto with = [&](auto t) { coded ? run(t, Type<E4m3>{}) : run(t, t); };
  r.q.dtype == core::DType::bf16 ? with(Type<__nv_bfloat16>{}) : with(Type<__half>{});
  return true;
}

void write_one(const Context& c, const View& in, void* cache, core::DType dtype, int kv_heads, int head_dim,
               const StepView& step) {
  dispatch_float(in.dtype, "kv_write", [&](auto t) {
    dispatch_cache(dtype, "kv_write", [&](auto u) {
      using T = typename decltype(t)::type;
      using C = typename decltype(u)::type;
      kv_write_kernel<T, C><<<step.tokens, block_threads(kv_heads * head_dim, 256), 0, c.stream>>>(
          kview(in), static_cast<C*>(cache), kv_heads, head_dim, step.block_tokens, step.slots);
    });
  });
  check_launch("kv_write");
}

}  // namespace

void rope(const Context& c, const device::Rope& op, const View& x, const View& positions, const View& inv_freq,
          const View* long_inv_freq, const StepView& step, const View& out) {
  const int tokens = static_cast<int>(x.shape[0]);
  if (tokens == 0) return;
  dispatch_float(x.dtype, "rope", [&](auto t) {
    using T = typename decltype(t)::type;
    rope_kernel<T><<<tokens, block_threads(x.shape[1] * op.rotary_dim / 2, 512), 0, c.stream>>>(
        op, kview(x), kview(out), static_cast<const std::int32_t*>(positions.data),
        static_cast<const float*>(inv_freq.data),
        long_inv_freq ? static_cast<const float*>(long_inv_freq->data) : nullptr, step.sequence_of, step.rope_len);
  });
  check_launch("rope");
}

RopeKv rope_kv(const device::RopeKvWrite& op, std::span<const View> in, const StepView& step, const View& out) {
  if (op.rope.rotary_dim > 2 * kMostPairs)
    core::fail(core::ErrorCode::shape_error, core::cat("[rope_kv_write] rotary_dim is ", op.rope.rotary_dim,
                                                       "; the CUDA backend takes ", 2 * kMostPairs, "."));
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  RopeKv r{};
  r.op = op;
  r.q = kview(in[0]);
  r.k = kview(in[1]);
  r.v = kview(in[2]);
  r.out = kview(out);
  r.positions = static_cast<const std::int32_t*>(in[3].data);
  r.inv_freq = static_cast<const float*>(in[4].data);
  r.sequence_of = step.sequence_of;
  r.rope_len = step.rope_len;
  r.slots = step.slots;
  r.k_cache = layer.k;
  r.v_cache = layer.v;
  r.block_tokens = step.block_tokens;
  std::size_t next = 5;
  if (op.rope.length == device::RopeLength::long_short) r.long_inv_freq = static_cast<const float*>(in[next++].data);
  if (op.normed) {
    r.q_norm = static_cast<const float*>(in[next++].data);
    r.k_norm = static_cast<const float*>(in[next].data);
  }
  return r;
}

void rope_kv_write(const Context& c, const device::RopeKvWrite& op, std::span<const View> in, const StepView& step,
                   const View& out) {
  const int tokens = static_cast<int>(in[0].shape[0]);
  if (tokens == 0) return;
  const RopeKv r = rope_kv(op, in, step, out);
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  const auto heads = static_cast<unsigned>(in[0].shape[1] + 2 * in[1].shape[1]);
  if (launch_wide(c, r, layer.dtype, tokens, heads)) return;
  const unsigned each = tokens <= 32 ? 4 : 16;  // heads of a block: few tokens need many blocks
  dispatch_float(in[0].dtype, "rope_kv_write", [&](auto t) {
    dispatch_cache(layer.dtype, "rope_kv_write", [&](auto u) {
      using T = typename decltype(t)::type;
      using C = typename decltype(u)::type;
      launch(c, &rope_kv_write_kernel<T, C>, dim3(static_cast<unsigned>(tokens), (heads + each - 1) / each), 128, 0, 1,
             r, static_cast<int>(each));
    });
  });
}

void kv_write(const Context& c, const device::KvWrite& op, const View& k, const View& v, const StepView& step) {
  if (step.tokens == 0) return;
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  write_one(c, k, layer.k, layer.dtype, layer.kv_heads, layer.head_dim, step);
  write_one(c, v, layer.v, layer.dtype, layer.kv_heads, layer.v_head_dim, step);
}

}  // namespace fastllm::cuda
