// Kernels with one fault each, and sound ones beside them: what the emulator has to tell apart.
#include <cuda_fp16.h>

// Each thread hands its value to the next one. With the barrier: a rotation. Without: whatever was there.
extern "C" __global__ void rotate(const float* __restrict__ in, float* __restrict__ out, int barrier) {
    __shared__ float s[256];
    s[threadIdx.x] = in[threadIdx.x];
    if (barrier) __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void divergent_barrier(int* out) {
    if (threadIdx.x < 5) __syncthreads();
    else out[threadIdx.x] = 1;
    if (threadIdx.x >= 5) __syncthreads();
}

extern "C" __global__ void missing_lane(int* out) {
    if (threadIdx.x < 31) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    else __syncthreads();
}

extern "C" __global__ void not_in_mask(int* out) { out[threadIdx.x] = __ballot_sync(0x0000ffffu, 1); }

extern "C" __global__ void mixed_operations(int* out) {
    if (threadIdx.x & 1) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
    else __syncwarp();
}

extern "C" __global__ void write_at(float* buffer, int index) {
    if (threadIdx.x == 0) buffer[index] = 1.0f;
}

extern "C" __global__ void shared_at(float* out, int index) {
    DYNAMIC_SHARED(float, s);
    s[index + threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void static_shared_at(float* out, int index) {
    __shared__ float s[32];
    s[index + threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void signed_overflow(int* out, int by) { out[threadIdx.x] = out[threadIdx.x] + by; }

extern "C" __global__ void unset_shared(float* out) {
    __shared__ float s[32];
    if (threadIdx.x < 16) s[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}

// Warp 0 writes, warp 1 reads, nothing between: right under the forward schedule alone.
extern "C" __global__ void lucky_order(float* out) {
  __shared__ float s[32];
  if (threadIdx.x < 32) s[threadIdx.x] = 1.0f;
  else out[threadIdx.x - 32] = s[threadIdx.x - 32];
}

// A shuffle does not order memory; __syncwarp does.
extern "C" __global__ void neighbours(float* out, int synchronise) {
  __shared__ float s[32];
  s[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (synchronise) __syncwarp();
  else __shfl_sync(0xffffffffu, 0, 0);
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

// Blocks that write one place: atomically, or not.
extern "C" __global__ void count_blocks(int* total, int atomically) {
  if (threadIdx.x) return;
  if (atomically) atomicAdd(total, 1);
  else *total = *total + 1;
}
