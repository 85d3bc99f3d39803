// Points into buckets, one warp a bucket: what fps.cu and knn.cu prune by. Reference: edge_ad/runtime/kernels/reference.py
#include "points_common.cuh"

__device__ __forceinline__ float lowest_of_warp(float v) {
  for (int o = 16; o; o >>= 1) v = fminf(v, __shfl_xor_sync(FULL_WARP, v, o));
  return v;
}

__device__ __forceinline__ float highest_of_warp(float v) {
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, o));
  return v;
}

struct Extent {
  float lx, ly, lz, hx, hy, hz;
  int count;
};

__device__ __forceinline__ void put(float4* slots, float* nearest, long long slot, const float* points, int index,
                                    Extent& e) {
  if (index < 0) {
    slots[slot] = make_float4(0.0f, 0.0f, 0.0f, __int_as_float(-1));
    nearest[slot] = -1.0f;  // below every distance: never the farthest
    return;
  }
  const float x = points[3 * index], y = points[3 * index + 1], z = points[3 * index + 2];
  slots[slot] = make_float4(x, y, z, __int_as_float(index));
  nearest[slot] = INFINITE;
  e.lx = fminf(e.lx, x), e.ly = fminf(e.ly, y), e.lz = fminf(e.lz, z);
  e.hx = fmaxf(e.hx, x), e.hy = fmaxf(e.hy, y), e.hz = fmaxf(e.hz, z);
  ++e.count;
}

__device__ __forceinline__ void put_box(float4* boxes, int bucket, Extent e, int lane) {
  e.lx = lowest_of_warp(e.lx), e.ly = lowest_of_warp(e.ly), e.lz = lowest_of_warp(e.lz);
  e.hx = highest_of_warp(e.hx), e.hy = highest_of_warp(e.hy), e.hz = highest_of_warp(e.hz);
  e.count = __reduce_add_sync(FULL_WARP, e.count);
  if (lane == 0) {
    boxes[2 * bucket] = make_float4(e.lx, e.ly, e.lz, __int_as_float(e.count));
    boxes[2 * bucket + 1] = make_float4(e.hx, e.hy, e.hz, 0.0f);
  }
}

// Buckets are square tiles of the sample grid (tile x tile pixels of the lattice of every `stride`-th pixel), `across`
// tiles a row. rank : (size, size), the point of a pixel, -1 without. Grid: one warp a tile, rounded up.
extern "C" __global__ void __launch_bounds__(256)
order_tiles(const float* __restrict__ points, const int* __restrict__ rank, int size, int stride, int tile, int across,
            float4* __restrict__ slots, float* __restrict__ nearest, float4* __restrict__ boxes) {
  const int lane = threadIdx.x & 31;
  const int bucket = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
  if (bucket >= across * across) return;
  const int room = tile * tile;
  Extent e = {INFINITE, INFINITE, INFINITE, -INFINITE, -INFINITE, -INFINITE, 0};
  for (int s = lane; s < room; s += 32) {
    const int row = (bucket / across * tile + s / tile) * stride, column = (bucket % across * tile + s % tile) * stride;
    const int index = row < size && column < size ? rank[row * size + column] : -1;
    put(slots, nearest, static_cast<long long>(bucket) * room + s, points, index, e);
  }
  put_box(boxes, bucket, e, lane);
}

// Buckets are `room` consecutive points each. count : number of points, on the device. Grid: one warp a bucket.
extern "C" __global__ void __launch_bounds__(256)
order_points(const float* __restrict__ points, const int* __restrict__ count, int buckets, int room,
             float4* __restrict__ slots, float* __restrict__ nearest, float4* __restrict__ boxes) {
  const int lane = threadIdx.x & 31;
  const int bucket = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
  if (bucket >= buckets) return;
  const int n = *count;
  Extent e = {INFINITE, INFINITE, INFINITE, -INFINITE, -INFINITE, -INFINITE, 0};
  for (int s = lane; s < room; s += 32) {
    const int index = bucket * room + s;
    put(slots, nearest, static_cast<long long>(bucket) * room + s, points, index < n ? index : -1, e);
  }
  put_box(boxes, bucket, e, lane);
}
