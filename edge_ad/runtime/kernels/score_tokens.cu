// Between the networks: pooled point tokens, FP16 copies of the token tables.
#include "score_common.cuh"

// Each token becomes the mean over its `pool` nearest centres (preset field points.pool), summed in the order of `index`.
extern "C" __global__ void __launch_bounds__(256)
score_pool(const float* __restrict__ tokens, int dim, const int* __restrict__ index, int pool, int groups,
           float* __restrict__ out) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<long long>(groups) * dim) return;
  const int g = static_cast<int>(i / dim), c = static_cast<int>(i - static_cast<long long>(g) * dim);
  float sum = 0.0f;
  for (int k = 0; k < pool; ++k) sum += tokens[static_cast<long long>(index[g * pool + k]) * dim + c];
  out[i] = sum / static_cast<float>(pool);
}

// float32 -> FP16 storage; `overflow` counts threads that met a value beyond FP16's range.
extern "C" __global__ void __launch_bounds__(256)
score_pack(const float* __restrict__ in, long long count, half_bits* __restrict__ out, int* __restrict__ overflow) {
  bool outside = false;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<long long>(gridDim.x) * blockDim.x)
    outside |= store(out, i, in[i]);
  if (outside) atomicAdd(overflow, 1);
}
