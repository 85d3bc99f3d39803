// Smoothing of the anomaly map: edge_ad.runtime.maps.smooth. All passes of a cascade in one launch.
//
// A block smooths a tile with a rim as wide as all passes together; zeros lie beyond the image's border before every pass,
// as in the reference (BORDER_CONSTANT).
#include "points_common.cuh"

#define TILE 32

// in : (size, size). passes : the number of filters; radius, scale : of each; taps : the filters' weights one behind the
// other, 2 radius + 1 each, used along rows and columns; the result of a pass is times its scale. rim : sum of the radii.
// weight : null, or the weights' own smoothed image: the result is then divided by max(weight, 1e-6). valid : null, or a
// mask beyond which that is 0. out : (size, size), written; not `in`. Block: 512 threads; grid: ceil(size / 32) twice;
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
    if (weight) v = !valid || valid[y * size + x] ? v / fmaxf(weight[y * size + x], 1e-6f) : 0.0f;
    out[y * size + x] = v;
  }
}

// Weights of the smoothing (edge_ad.runtime.maps.rim_weight): 0 where invalid, `light` where a pixel within `rim` of it along
// both axes is, else 1; what lies beyond the border counts as valid. out : (size, size), written; map : (size, size), times
// the weights, in place. Grid: ceil(size * size / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
rim_weight(const unsigned char* __restrict__ valid, int size, int rim, float light, float* __restrict__ out,
           float* __restrict__ map) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= size * size) return;
  const int x = pixel % size, y = pixel / size;
  float weight = valid[pixel] ? 1.0f : 0.0f;
  if (weight > 0.0f) {
    for (int v = max(y - rim, 0); v <= min(y + rim, size - 1) && weight == 1.0f; ++v)
      for (int u = max(x - rim, 0); u <= min(x + rim, size - 1) && weight == 1.0f; ++u)
        if (!valid[v * size + u]) weight = light;
  }
  out[pixel] = weight;
  map[pixel] *= weight;
}

// top : 1, 0 before: the largest of a map's values at valid pixels, at least 0; a non-negative float orders as its bits do.
// Grid: ceil(n / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
top_of_valid(const float* __restrict__ map, const unsigned char* __restrict__ valid, int n, int* __restrict__ top) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  const int mine = pixel < n && valid[pixel] ? max(__float_as_int(map[pixel]), 0) : 0;
  const int most = __reduce_max_sync(FULL_WARP, mine);
  if ((threadIdx.x & 31) == 0 && most > 0) atomicMax(top, most);
}

// fusion.spread (edge_ad.runtime.maps.smooth): the map, in place, keeps its values within `spread` pixels of a valid one,
// but none above *top, and is 0 elsewhere. Grid: ceil(size * size / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
spread_map(const unsigned char* __restrict__ valid, int size, int spread, const int* __restrict__ top,
           float* __restrict__ map) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= size * size) return;
  const int x = pixel % size, y = pixel / size;
  bool near = valid[pixel] != 0;
  for (int v = max(y - spread, 0); v <= min(y + spread, size - 1) && !near; ++v)
    for (int u = max(x - spread, 0); u <= min(x + spread, size - 1) && !near; ++u) near = valid[v * size + u] != 0;
  map[pixel] = near ? fminf(map[pixel], __int_as_float(*top)) : 0.0f;
}
