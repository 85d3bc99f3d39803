// Valid pixels of the sample grid to a dense list of points, row-major, and that list into the unit of the point encoder.
//
// Two passes and no block waits for another: the first counts, the second adds up the counts before its own block.
#include "points_common.cuh"

__device__ __forceinline__ bool taken(const unsigned char* valid, int size, int stride, int pixel) {
  if (pixel >= size * size || !valid[pixel]) return false;
  return stride == 1 || (pixel / size % stride == 0 && pixel % size % stride == 0);
}

// valid : (size, size) bytes. stride : only the lattice of every stride-th row and column. counts : one a block, written.
// Grid: ceil(size * size / 1024) blocks of 1024.
extern "C" __global__ void __launch_bounds__(1024)
compact_count(const unsigned char* __restrict__ valid, int size, int stride, int* __restrict__ counts) {
  const int total = __syncthreads_count(taken(valid, size, stride, blockIdx.x * blockDim.x + threadIdx.x));
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// What a part is refused by, and its share of lost depth. counts : 5, added to: valid pixels, lost, either, camera pixels
// behind the valid ones of a window of `side` camera pixels, valid pixels on the lattice of every stride-th. Grid as above.
extern "C" __global__ void __launch_bounds__(1024)
part_counts(const unsigned char* __restrict__ valid, const unsigned char* __restrict__ lost, int size, int side, int stride,
            int* __restrict__ counts) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  const bool here = taken(valid, size, 1, pixel), gone = pixel < size * size && lost[pixel];
  bool first = here;
  if (here && side < size) {
    // A small part repeats its camera pixels: count the first row and column of each repetition.
    const int row = pixel / size, column = pixel % size;
    first = (row == 0 || (2 * row + 1) * side / (2 * size) != (2 * row - 1) * side / (2 * size)) &&
            (column == 0 || (2 * column + 1) * side / (2 * size) != (2 * column - 1) * side / (2 * size));
  }
  const int valid_n = __syncthreads_count(here), lost_n = __syncthreads_count(gone),
            either_n = __syncthreads_count(here || gone), measured_n = __syncthreads_count(first),
            drawn_n = __syncthreads_count(taken(valid, size, stride, pixel));
  if (threadIdx.x != 0 || either_n == 0) return;
  atomicAdd(counts, valid_n), atomicAdd(counts + 1, lost_n), atomicAdd(counts + 2, either_n);
  atomicAdd(counts + 3, measured_n), atomicAdd(counts + 4, drawn_n);
}

// xyz : (size, size, 3). points : (n, 3), written, or null; pixels : (n,) their pixels, or null; rank : (size, size) index of a
// pixel's point, -1 without, or null; count : 1, written. Grid as above; counts by compact_count.
extern "C" __global__ void __launch_bounds__(1024)
compact_scatter(const unsigned char* __restrict__ valid, const float* __restrict__ xyz, int size, int stride,
                const int* __restrict__ counts, float* __restrict__ points, int* __restrict__ pixels,
                int* __restrict__ rank, int* __restrict__ count) {
  __shared__ int before_warp[32], before_block;
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const bool mine = taken(valid, size, stride, pixel);
  const unsigned of_warp = __ballot_sync(FULL_WARP, mine);
  if (lane == 0) before_warp[warp] = __popc(of_warp);
  __syncthreads();
  if (warp == 0) {
    const int own = before_warp[lane];
    int sum = own;
    for (int o = 1; o < 32; o *= 2) {
      const int other = __shfl_up_sync(FULL_WARP, sum, o);
      if (lane >= o) sum += other;
    }
    before_warp[lane] = sum - own;
    int earlier = 0;
    for (int b = lane; b < static_cast<int>(blockIdx.x); b += 32) earlier += counts[b];
    earlier = __reduce_add_sync(FULL_WARP, earlier);
    if (lane == 0) before_block = earlier;
    if (lane == 31 && blockIdx.x == gridDim.x - 1) *count = earlier + sum;
  }
  __syncthreads();
  if (pixel >= size * size) return;
  const int at = before_block + before_warp[warp] + __popc(of_warp & ((1u << lane) - 1u));
  if (rank) rank[pixel] = mine ? at : -1;
  if (!mine) return;
  if (pixels) pixels[at] = pixel;
  if (!points) return;
  for (int c = 0; c < 3; ++c) points[3 * at + c] = xyz[3 * pixel + c];
}

// How edge_ad.runtime.point_input.normalise moves a cloud. how : 0 none, 1 unit-sphere, 2 fixed: times `factor`.
// frame : 4 floats, written: what to subtract, what to multiply by; a factor of 0 means that all points coincide.
// The mean is good to about 48 bits; the farthest point is found in float32 and its distance taken in float64, of which
// there is one a cloud. Grid: 1 block of 1024.
extern "C" __global__ void __launch_bounds__(1024)
cloud_frame(const float* __restrict__ points, const int* __restrict__ count, int how, float factor,
            float* __restrict__ frame) {
  __shared__ float part_high[3][32], part_low[3][32], warp_d[32];
  __shared__ int warp_i[32];
  __shared__ double mean[3];
  const int n = *count, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (how == 0 || n <= 0) {
    if (threadIdx.x < 4) frame[threadIdx.x] = threadIdx.x == 3 ? 1.0f : 0.0f;
    return;
  }
  TwoSum sums[3] = {{0.0f, 0.0f}, {0.0f, 0.0f}, {0.0f, 0.0f}};
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    for (int c = 0; c < 3; ++c) add(sums[c], points[3 * i + c]);
  for (int c = 0; c < 3; ++c) {
    sums[c] = warp_sum(sums[c]);
    if (lane == 0) part_high[c][warp] = sums[c].high, part_low[c][warp] = sums[c].low;
  }
  __syncthreads();
  for (int c = 0; c < 3; ++c) {
    const TwoSum sum = warp_sum({part_high[c][lane], part_low[c][lane]});
    if (threadIdx.x == 0) mean[c] = (static_cast<double>(sum.high) + sum.low) / n;
  }
  __syncthreads();
  if (how == 1) {
    const float x = static_cast<float>(mean[0]), y = static_cast<float>(mean[1]), z = static_cast<float>(mean[2]);
    float d = -1.0f;
    int index = NO_INDEX;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      const float here =
          distance2(__fsub_rn(points[3 * i], x), __fsub_rn(points[3 * i + 1], y), __fsub_rn(points[3 * i + 2], z));
      if (here > d) d = here, index = i;
    }
    const int best = farthest_lane(d, index);
    if (lane == best) warp_d[warp] = d, warp_i[warp] = index;
    __syncthreads();
    const int far = warp_i[farthest_lane(warp_d[lane], warp_i[lane])];
    if (threadIdx.x == 0) {
      double d2 = 0.0;
      for (int c = 0; c < 3; ++c) {
        const double along = points[3 * far + c] - mean[c];
        d2 = __dadd_rn(d2, __dmul_rn(along, along));
      }
      factor = d2 > 0.0 ? static_cast<float>(1.0 / sqrt(d2)) : 0.0f;
    }
  }
  if (threadIdx.x == 0) {
    for (int c = 0; c < 3; ++c) frame[c] = static_cast<float>(mean[c]);
    frame[3] = factor;
  }
}

// points : (n, 3), moved in place by `frame`. Grid: any number of blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
cloud_apply(float* __restrict__ points, const int* __restrict__ count, const float* __restrict__ frame) {
  const int n = 3 * *count;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    points[i] = __fmul_rn(__fsub_rn(points[i], frame[i % 3]), frame[3]);
}
