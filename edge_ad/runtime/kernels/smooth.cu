// Smoothing of the anomaly map: edge_ad.runtime.maps.smooth. All passes of a cascade in one launch.
//
// A block smooths a tile with a rim as wide as all passes together; zeros lie beyond the image's border before every pass,
// as in the reference (BORDER_CONSTANT).
#include "points_common.cuh"

#define TILE 32

// in : (size, size). passes : the number of filters; radius, scale : of each; taps : the filters' weights one behind the
// other, 2 radius + 1 each, used along rows and columns; the result of a pass is times its scale. rim : sum of the radii.
// valid, weight : null, or the mask and its own smoothed image: the result is then divided by max(weight, 1e-6), 0 where
// not valid. out : (size, size), written; not `in`. Block: 512 threads; grid: ceil(size / 32) twice;
// shared: 2 (32 + 2 rim)^2 floats.
extern "C" __global__ void __launch_bounds__(512)
smooth(const float* __restrict__ in, int size, int passes, const int* __restrict__ radius,
       const float* __restrict__ scale, const float* __restrict__ taps, int rim, const unsigned char* __restrict__ valid,
       const float* __restrict__ weight, float* __restrict__ out) {
  DYNAMIC_SHARED(float, image);
  const int across = TILE + 2 * rim, area = across * across;
  float* other = image + area;
  const int left = blockIdx.x * TILE - rim, top = blockIdx.y * TILE - rim;
  const int thread = threadIdx.x, threads = blockDim.x;
  for (int i = thread; i < area; i += threads) {
    const int x = left + i % across, y = top + i / across;
    image[i] = x >= 0 && x < size && y >= 0 && y < size ? in[y * size + x] : 0.0f;
  }
  __syncthreads();
  int margin = 0;  // pixels at the rim that hold nothing any more
  const float* w = taps;
  for (int p = 0; p < passes; ++p) {
    const int r = radius[p];
    // Along rows: the columns that are good afterwards, all rows that are good now.
    const int wide = across - 2 * (margin + r), high = across - 2 * margin;
    for (int i = thread; i < wide * high; i += threads) {
      const int at = (margin + i / wide) * across + margin + r + i % wide;
      float sum = 0.0f;
      for (int t = -r; t <= r; ++t) sum += image[at + t] * w[t + r];
      other[at] = sum;
    }
    __syncthreads();
    margin += r;
    for (int i = thread; i < wide * wide; i += threads) {
      const int row = margin + i / wide, column = margin + i % wide, at = row * across + column;
      const int x = left + column, y = top + row;
      float sum = 0.0f;
      for (int t = -r; t <= r; ++t) sum += other[at + t * across] * w[t + r];
      image[at] = x >= 0 && x < size && y >= 0 && y < size ? sum * scale[p] : 0.0f;
    }
    __syncthreads();
    w += 2 * r + 1;
  }
  for (int i = thread; i < TILE * TILE; i += threads) {
    const int x = blockIdx.x * TILE + i % TILE, y = blockIdx.y * TILE + i / TILE;
    if (x >= size || y >= size) continue;
    float v = image[(rim + i / TILE) * across + rim + i % TILE];
    if (weight) v = valid[y * size + x] ? v / fmaxf(weight[y * size + x], 1e-6f) : 0.0f;
    out[y * size + x] = v;
  }
}

// bytes 0 / 1 -> float32, the image that `weight` is smoothed from. Grid: ceil(n / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
mask_to_float(const unsigned char* __restrict__ mask, int n, float* __restrict__ out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = mask[i] ? 1.0f : 0.0f;
}
