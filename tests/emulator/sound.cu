// Sound kernels over all that the emulator offers; tests/emulator/test_emulator.py knows their results.
#include <cuda_fp16.h>

extern "C" __global__ void indices(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

// Sum of a block by shuffles, one value a block.
extern "C" __global__ void __launch_bounds__(1024) block_sum(const float* __restrict__ in, float* __restrict__ out, int n) {
    __shared__ float part[32];
    float v = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += in[i];
    for (int o = 16; o; o >>= 1) v += __shfl_down_sync(0xffffffffu, v, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
        for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
        if (threadIdx.x == 0) out[blockIdx.x] = v;
    }
}

// Lanes of one warp in two halves, each in a loop of its own length under a mask of its own.
extern "C" __global__ void partial_masks(int* out) {
    const int lane = threadIdx.x;
    const unsigned mine = lane < 10 ? 0x000003ffu : 0xfffffc00u;
    int v = lane;
    for (int k = 0; k < (lane < 10 ? 2 : 5); ++k) v = __shfl_sync(mine, v, lane < 10 ? (lane + 1) % 10 : 10 + (lane - 9) % 22);
    out[lane] = v;
    __syncwarp();
    out[32 + lane] = __ballot_sync(mine, lane % 3 == 0);
    out[64 + lane] = __any_sync(mine, lane == 9);
    out[96 + lane] = __all_sync(mine, lane < 10);
    out[128 + lane] = __match_any_sync(mine, lane % 4);
    out[160 + lane] = __reduce_add_sync(mine, lane);
    out[192 + lane] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
    out[224 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
}

// Half of the threads leave; the rest meet at barriers and in warp operations.
extern "C" __global__ void early_exit(int* out) {
    if (threadIdx.x % 2) return;
    out[threadIdx.x] = __syncthreads_count(threadIdx.x % 4 == 0);
    out[threadIdx.x + 1] = __popc(__ballot_sync(0xffffffffu, 1));
}

extern "C" __global__ void atomics(const int* __restrict__ in, int n, int* sum, unsigned* top, unsigned long long* high,
                                   unsigned long long* low, float* total, int* slots, int* count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(sum, in[i]);
    atomicMax(top, unsigned(in[i]));
    atomicMax(high, (unsigned long long)in[i] << 32 | unsigned(i));
    atomicMin(low, (unsigned long long)in[i] << 32 | unsigned(i));
    atomicAdd(total, 1.0f);
    slots[atomicAdd(count, 1)] = i;
}

extern "C" __global__ void dynamic_shared(const int* __restrict__ in, int* __restrict__ out) {
    DYNAMIC_SHARED(int, s);
    s[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void unfused(const float* a, const float* b, const float* c, float* rounded, float* fused) {
    const int i = threadIdx.x;
    rounded[i] = __fadd_rn(__fmul_rn(a[i], b[i]), c[i]);
    fused[i] = __fmaf_rn(a[i], b[i], c[i]);
}

struct Window {
    int x, y;
    float scale;
};

extern "C" __global__ void structures(const __half* __restrict__ in, __half* __restrict__ out, Window w, float4* four) {
    out[threadIdx.x] = __float2half(__half2float(in[threadIdx.x]) * w.scale + w.x);
    if (threadIdx.x == 0) four[0] = make_float4(w.x, w.y, w.scale, 4.0f);
}
