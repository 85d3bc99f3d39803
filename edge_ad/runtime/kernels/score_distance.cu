// Distance epilogues (METHOD.md eq. 12-16): norms of differences of unit vectors, the class of `auto`, the fused map.
//
// One warp a pixel; the norm of the difference, never sqrt(2 - 2 cos), which loses 1e-3 where good parts lie.
#include "score_common.cuh"

template <typename T>
__device__ __forceinline__ void distance_to_feature(const T* __restrict__ table, int width, int dim,
                                                    const int* __restrict__ pixel, const int* __restrict__ low,
                                                    const float* __restrict__ share, int size, int grid, const int* __restrict__ total,
                                                    int first, int count, const float* __restrict__ mapped, int rank,
                                                    int stride, float* __restrict__ distance, float* shared) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int i = blockIdx.x * (blockDim.x >> 5) + warp;
  if (i >= count || first + i >= *total) return;
  float* feature = shared + static_cast<long long>(warp) * dim;
  const float* y = mapped + static_cast<long long>(i) * stride;
  const Taps<4> taps = bilinear_taps(pixel[first + i], low, share, size, grid, width);
  float xx = 0.0f, yy = 0.0f;
  for (int c = lane; c < dim; c += 32) {
    const float x = interpolate(table, taps, c);
    feature[c] = x;
    xx += x * x;
    if (c < rank) yy += y[c] * y[c];
  }
  const float unit_x = inverse_norm(warp_sum(xx)), unit_y = inverse_norm(warp_sum(yy));
  float squared = 0.0f;
  for (int c = lane; c < dim; c += 32) {
    const float d = feature[c] * unit_x - (c < rank ? y[c] * unit_y : 0.0f);
    squared += d * d;
  }
  squared = warp_sum(squared);
  if (lane == 0) distance[first + i] = sqrtf(squared);
}

// Psi_rgb: the interpolated colour feature (the table's first `dim` columns) against what the points' MLP makes of it, of
// which only the first `rank` outputs are not zero (both sides are turned alike, see edge_ad.export.graphs.Turned).
extern "C" __global__ void __launch_bounds__(128)
score_distance_rgb(const unsigned char* __restrict__ table, int half, int width, int dim, const int* __restrict__ pixel,
                   const int* __restrict__ low, const float* __restrict__ share, int size, int grid,
                   const int* __restrict__ total, int first, int count, const float* __restrict__ mapped, int rank,
                   int stride, float* __restrict__ distance) {
  DYNAMIC_SHARED(float, shared);
  if (half)
    distance_to_feature(as<half_bits>(table), width, dim, pixel, low, share, size, grid, total, first, count, mapped, rank,
                        stride, distance, shared);
  else
    distance_to_feature(as<float>(table), width, dim, pixel, low, share, size, grid, total, first, count, mapped, rank,
                        stride, distance, shared);
}

__device__ __forceinline__ float distance_to_unit(const float* __restrict__ anchor, const float* __restrict__ y, int dim,
                                                  float unit, float rest) {
  float squared = 0.0f;
  for (int c = threadIdx.x & 31; c < dim; c += 32) {
    const float d = anchor[c] - y[c] * unit;
    squared += d * d;
  }
  return sqrtf(warp_sum(squared) + rest);
}

__device__ __forceinline__ float unit_of(const float* __restrict__ y, int dim) {
  float yy = 0.0f;
  for (int c = threadIdx.x & 31; c < dim; c += 32) yy += y[c] * y[c];
  return inverse_norm(warp_sum(yy));
}

// One factor of Psi_text: a mapped feature (`dim` outputs) against the unit anchor of the class that `class_index` holds (on
// the device: with `auto` the host does not know it yet). rest : squared length of each anchor beyond those outputs.
extern "C" __global__ void __launch_bounds__(128)
score_distance_anchor(const float* __restrict__ anchors, const float* __restrict__ rest,
                      const int* __restrict__ class_index, int dim,
                      const float* __restrict__ mapped, int stride, const int* __restrict__ total, int first, int count,
                      float* __restrict__ distance) {
  const int i = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (i >= count || first + i >= *total) return;
  const float* y = mapped + static_cast<long long>(i) * stride;
  const int c = *class_index;
  const float d = distance_to_unit(anchors + static_cast<long long>(c) * dim, y, dim, unit_of(y, dim), rest[c]);
  if ((threadIdx.x & 31) == 0) distance[first + i] = d;
}

// Mean distance of the *total mapped features to every anchor; one block a class, sums in double, in a fixed order.
// With `accumulate` the mean of the second modality is added and the sum halved: what `auto` compares. One block a
// multiprocessor is enough: asked for nothing, newer compilers spill to make room for more.
extern "C" __global__ void __launch_bounds__(256, 1)
score_class_means(const float* __restrict__ anchors, const float* __restrict__ rest, int dim, const float* __restrict__ mapped, int stride,
                  const int* __restrict__ total, int accumulate, double* __restrict__ mean) {
  __shared__ double partial[8];
  const int count = *total;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const float* anchor = anchors + static_cast<long long>(blockIdx.x) * dim;
  double sum = 0.0;
  for (int i = warp; i < count; i += 8) {
    const float* y = mapped + static_cast<long long>(i) * stride;
    sum += static_cast<double>(distance_to_unit(anchor, y, dim, unit_of(y, dim), rest[blockIdx.x]));
  }
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0.0;
    for (int i = 0; i < 8; ++i) total += partial[i];
    total /= count;
    mean[blockIdx.x] = accumulate ? (mean[blockIdx.x] + total) / 2.0 : total;
  }
}

// The class with the least mean, the first of equals; as the kernels and as the score plan take it. One thread.
extern "C" __global__ void score_choose_class(const double* __restrict__ mean, int classes, int* __restrict__ class_index,
                                              long long* __restrict__ plan_index) {
  int best = 0;
  for (int c = 1; c < classes; ++c)
    if (mean[c] < mean[best]) best = c;
  *class_index = best;
  *plan_index = best;
}

// Psi_rgb and Psi_3d over what is expected there (edge_ad.runtime.scoring.over_levels): the levels of the tokens,
// interpolated as their features are. rgb_level : (grid^2,) of Psi_3d. point_level : (groups,) of Psi_rgb. In place.
extern "C" __global__ void __launch_bounds__(256)
score_levels(const float* __restrict__ rgb_level, const float* __restrict__ point_level, const int* __restrict__ pixel,
             const int* __restrict__ low, const float* __restrict__ share, int size, int grid,
             const int* __restrict__ neighbour, const float* __restrict__ weight, const int* __restrict__ total,
             float* __restrict__ rgb, float* __restrict__ points) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= *total) return;
  rgb[i] /= interpolate(point_level, nearest_taps(i, neighbour, weight, 1), 0);
  points[i] /= interpolate(rgb_level, bilinear_taps(pixel[i], low, share, size, grid, 1), 0);
}

// Eq. 16: alpha Psi_rgb Psi_3d + beta Psi_text with the balance in `alpha` and `beta`, scattered to the (zeroed) map; with
// `larger` the larger of Psi_rgb per_rgb and Psi_3d per_3d in the place of their product. text_rgb and text_3d may be null.
extern "C" __global__ void __launch_bounds__(256)
score_fuse(const float* __restrict__ rgb, const float* __restrict__ points, const float* __restrict__ text_rgb,
           const float* __restrict__ text_3d, float alpha, float beta, int larger, float per_rgb, float per_3d,
           const int* __restrict__ pixel, const int* __restrict__ total, float* __restrict__ map) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= *total) return;
  // Rounded as NumPy rounds, so no fused multiply-add.
  float psi = larger ? __fmul_rn(alpha, fmaxf(__fmul_rn(rgb[i], per_rgb), __fmul_rn(points[i], per_3d)))
                     : __fmul_rn(__fmul_rn(alpha, rgb[i]), points[i]);
  if (text_rgb != nullptr) psi = __fadd_rn(psi, __fmul_rn(__fmul_rn(beta, text_rgb[i]), text_3d[i]));
  map[pixel[i]] = psi;
}

// Mean of each of two rows of distances, in double: the sample's distance to its class's anchor. One block.
extern "C" __global__ void __launch_bounds__(256)
score_anchor_mean(const float* __restrict__ text_rgb, const float* __restrict__ text_3d, const int* __restrict__ total,
                  double* __restrict__ mean) {
  __shared__ double partial[256];
  const int count = *total;
  double sum = 0.0;
  for (int i = threadIdx.x; i < count; i += 256) sum += static_cast<double>(text_rgb[i]) + static_cast<double>(text_3d[i]);
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 128; half > 0; half >>= 1) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *mean = partial[0] / count / 2.0;
}

// The pixels on which `auto` compares the classes: up to `most`, evenly spaced over the valid ones, those of NumPy's
// unique(round(linspace(0, total - 1, min(total, most)))). Sums and roundings in double, as NumPy's.
extern "C" __global__ void __launch_bounds__(256)
score_subset(const int* __restrict__ pixel, const int* __restrict__ neighbour, const float* __restrict__ weight,
             const int* __restrict__ total, int most, int* __restrict__ some_pixel, int* __restrict__ some_neighbour,
             float* __restrict__ some_weight, int* __restrict__ some_total) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int n = *total, m = min(n, most);
  if (i == 0) *some_total = m;
  if (i >= m) return;
  const double step = m > 1 ? static_cast<double>(n - 1) / static_cast<double>(m - 1) : 0.0;
  const int from = i == m - 1 ? n - 1 : static_cast<int>(rint(static_cast<double>(i) * step));
  some_pixel[i] = pixel[from];
  for (int k = 0; k < 3; ++k) {
    some_neighbour[3 * i + k] = neighbour[3 * from + k];
    some_weight[3 * i + k] = weight[3 * from + k];
  }
}
