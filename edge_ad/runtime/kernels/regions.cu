// From the smoothed map to score, mask and bounding boxes: edge_ad.runtime.maps (image_score, drop_small, find_regions) and
// the mask rule of edge_ad.runtime.detector. Connected areas by union-find: labels only ever fall, to the lowest pixel.
#include "points_common.cuh"

#define RIM 3      // pixels beyond the part that smoothing carries the map to (edge_ad.runtime.detector)
#define FIELDS 7   // area, x0, y0, x1, y1 (half open), bits of the peak, first 2 x 2 block (OpenCV numbers areas by it)
#define MEASURES 12

// map : (n,). statistics : 3 doubles, written: maximum, sum and number of the values that are not 0.
// Grid: 1 block of 1024.
extern "C" __global__ void __launch_bounds__(1024)
map_statistics(const float* __restrict__ map, int n, double* __restrict__ statistics) {
  __shared__ float part_top[32], part_high[32], part_low[32];
  __shared__ int part_count[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float top = -INFINITE;
  TwoSum sum = {0.0f, 0.0f};
  int count = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = map[i];
    top = fmaxf(top, v);
    add(sum, v);
    count += v != 0.0f;
  }
  for (int pass = 0; pass < 2; ++pass) {
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, o));
    sum = warp_sum(sum);
    count = __reduce_add_sync(FULL_WARP, count);
    if (pass == 1) break;
    if (lane == 0) part_top[warp] = top, part_high[warp] = sum.high, part_low[warp] = sum.low, part_count[warp] = count;
    __syncthreads();
    top = part_top[lane], sum = {part_high[lane], part_low[lane]}, count = part_count[lane];
  }
  if (threadIdx.x == 0) {
    statistics[0] = top;
    statistics[1] = static_cast<double>(sum.high) + sum.low;
    statistics[2] = count;
  }
}

// Whether a part can be judged, and its decision. counts : by part_counts. cloud_frame : by cloud_frame. overflow : 1.
// statistics : by map_statistics. over_rms : CFM's score, the maximum / sqrt(mean of what is not 0). limits : (classes,).
// score : 1, written. verdict : 2, written: 1 where the part can be judged, 1 where its score is above its class's limit.
// One thread.
extern "C" __global__ void part_verdict(const int* __restrict__ counts, const float* __restrict__ cloud_frame,
                                        const int* __restrict__ overflow, const double* __restrict__ statistics,
                                        int over_rms, const double* __restrict__ limits,
                                        const int* __restrict__ class_index, int min_valid, int group_size,
                                        double* __restrict__ score, int* __restrict__ verdict) {
  double peak = statistics[0];
  const double sum = statistics[1];
  if (over_rms && peak != 0.0) peak = peak / sqrt(sum / statistics[2]);
  if (sum != sum) peak = sum;  // a map with NaN has no score
  *score = peak;
  verdict[0] = counts[0] >= min_valid && counts[3] >= group_size && counts[4] >= group_size && cloud_frame[3] != 0.0f &&
               *overflow == 0;
  verdict[1] = peak > limits[*class_index];
}

// mask = map > the class's limit within RIM pixels of the valid ones. limits : (classes,).
// Grid: ceil(height * width / 256) blocks of 256, as of all that follow.
extern "C" __global__ void __launch_bounds__(256)
threshold_map(const float* __restrict__ map, const unsigned char* __restrict__ valid, int height, int width,
              const float* __restrict__ limits, const int* __restrict__ class_index, unsigned char* __restrict__ mask) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= height * width) return;
  bool on = map[pixel] > limits[*class_index];
  if (on) {
    const int x = pixel % width, y = pixel / width;
    on = false;
    for (int v = max(y - RIM, 0); v <= min(y + RIM, height - 1) && !on; ++v)
      for (int u = max(x - RIM, 0); u <= min(x + RIM, width - 1) && !on; ++u) on = valid[v * width + u] != 0;
  }
  mask[pixel] = on;
}

// labels and stats (FIELDS ints a pixel) made ready.
extern "C" __global__ void __launch_bounds__(256)
label_start(const unsigned char* __restrict__ mask, int pixels, int* __restrict__ labels, int* __restrict__ stats) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  labels[pixel] = mask[pixel] ? pixel : -1;
  if (!mask[pixel]) return;  // only an area's root needs its stats
  int* s = stats + FIELDS * static_cast<long long>(pixel);
  s[0] = 0, s[1] = s[2] = NO_INDEX, s[3] = s[4] = 0, s[5] = static_cast<int>(0x80000000u), s[6] = NO_INDEX;
}

// Others lower labels meanwhile. One access to memory each: a label that is read late still leads to the root.
__device__ __forceinline__ int peek(const volatile int* labels, int pixel) { return labels[pixel]; }
__device__ __forceinline__ void poke(volatile int* labels, int pixel, int label) { labels[pixel] = label; }

__device__ __forceinline__ int root_of(const int* labels, int pixel) {
  for (int above = peek(labels, pixel); above != pixel; above = peek(labels, pixel)) pixel = above;
  return pixel;
}

__device__ __forceinline__ void join(int* labels, int a, int b) {
  for (;;) {
    a = root_of(labels, a), b = root_of(labels, b);
    if (a == b) return;
    const int high = max(a, b), low = min(a, b);
    const int was = atomicMin(labels + high, low);
    if (was == high) return;
    a = was, b = low;  // somebody hung `high` elsewhere meanwhile: join that with `low`
  }
}

// Joins each pixel with its neighbours above and to the left (8-connected).
extern "C" __global__ void __launch_bounds__(256)
label_join(int height, int width, int* labels) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= height * width || peek(labels, pixel) < 0) return;
  const int x = pixel % width, y = pixel / width;
  if (x > 0 && peek(labels, pixel - 1) >= 0) join(labels, pixel, pixel - 1);
  if (y == 0) return;
  for (int u = max(x - 1, 0); u <= min(x + 1, width - 1); ++u)
    if (peek(labels, pixel - width - x + u) >= 0) join(labels, pixel, pixel - width - x + u);
}

// A float's bits as an integer of the same order, also below 0; its own inverse.
__device__ __forceinline__ int ordered(int bits) { return bits < 0 ? bits ^ 0x7fffffff : bits; }

// Every pixel's label becomes its root; the root's stats are gathered, once a warp and area.
extern "C" __global__ void __launch_bounds__(256)
label_measure(const float* __restrict__ map, int height, int width, int* labels, int* __restrict__ stats) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  const bool mine = pixel < height * width && peek(labels, pixel) >= 0;
  const int root = mine ? root_of(labels, pixel) : -1;
  if (mine) poke(labels, pixel, root);
  const unsigned same = __match_any_sync(FULL_WARP, root);
  if (!mine) return;
  const int x = pixel % width, y = pixel / width;
  const int x0 = __reduce_min_sync(same, x), x1 = __reduce_max_sync(same, x);
  const int y0 = __reduce_min_sync(same, y), y1 = __reduce_max_sync(same, y);
  const int peak = __reduce_max_sync(same, ordered(__float_as_int(map[pixel])));
  const int block = __reduce_min_sync(same, y / 2 * ((width + 1) / 2) + x / 2);
  if ((threadIdx.x & 31) != static_cast<unsigned>(__ffs(static_cast<int>(same)) - 1)) return;
  int* s = stats + FIELDS * static_cast<long long>(root);
  atomicAdd(s, __popc(same));
  atomicMin(s + 1, x0), atomicMin(s + 2, y0), atomicMax(s + 3, x1 + 1), atomicMax(s + 4, y1 + 1), atomicMax(s + 5, peak);
  atomicMin(s + 6, block);
}

// Drops areas of fewer than least pixels from the mask and lists the others, in no order: boxes : (most, FIELDS + 1), the
// root and its stats, the peak as float bits (null where most is 0); count : 1, 0 before: how many there are (may exceed most).
extern "C" __global__ void __launch_bounds__(256)
label_collect(const int* __restrict__ labels, const int* __restrict__ stats, int pixels, int least, int most,
              unsigned char* __restrict__ mask, int* __restrict__ boxes, int* __restrict__ count) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int root = labels[pixel];
  const bool kept = root >= 0 && stats[FIELDS * static_cast<long long>(root)] >= least;
  mask[pixel] = kept;
  if (!kept || root != pixel) return;
  const int at = atomicAdd(count, 1);
  if (at >= most) return;
  const int* s = stats + FIELDS * static_cast<long long>(root);
  int* b = boxes + (FIELDS + 1) * at;
  b[0] = root;
  for (int f = 0; f < FIELDS; ++f) b[1 + f] = f == 5 ? ordered(s[5]) : s[f];
}

// An anomalous part always shows where: if all its areas were too small for label_collect, they are put back.
// labels : as label_measure left them. verdict : by part_verdict. kept : the count of label_collect.
extern "C" __global__ void __launch_bounds__(256)
keep_above(const int* __restrict__ labels, const int* __restrict__ verdict, const int* __restrict__ kept, int pixels,
           unsigned char* __restrict__ mask) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel < pixels && verdict[1] && *kept == 0) mask[pixel] = labels[pixel] >= 0;
}

// m^2 that a pixel covers at its depth, perpendicular to the axis; 0 where unknown: edge_ad.runtime.maps._pixel_area.
__device__ __forceinline__ float pixel_area(const float* xyz, int x, int y, int height, int width) {
  if (x == 0 || y == 0 || x == width - 1 || y == height - 1) return 0.0f;
  const float* p = xyz + 3 * (static_cast<long long>(y) * width + x);
  const float *left = p - 3, *right = p + 3, *above = p - 3 * width, *below = p + 3 * width;
  if (!(p[2] > 0.0f && left[2] > 0.0f && right[2] > 0.0f && above[2] > 0.0f && below[2] > 0.0f)) return 0.0f;
  const float dx = 0.5f * fabsf(__fsub_rn(__fdiv_rn(right[0], right[2]), __fdiv_rn(left[0], left[2])));
  const float dy = 0.5f * fabsf(__fsub_rn(__fdiv_rn(below[1], below[2]), __fdiv_rn(above[1], above[2])));
  return __fmul_rn(__fmul_rn(__fmul_rn(dx, dy), p[2]), p[2]);
}

// What the listed areas measure in space. boxes, count : by label_collect. xyz : (height, width, 3) metres, 0 where unknown.
// measures : (most, MEASURES), written for the listed: sum and number of the pixels' areas, number of pixels with depth,
// sums of x, y, z, their minima, their maxima. Sums in double and in a fixed order. Grid: `most` blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
region_measures(const int* __restrict__ labels, const int* __restrict__ boxes, const int* __restrict__ count, int most,
                const float* __restrict__ xyz, int height, int width, double* __restrict__ measures) {
  __shared__ double part[MEASURES][256];
  const int region = blockIdx.x, me = threadIdx.x;
  if (region >= min(*count, most)) return;  // the whole block
  const int* b = boxes + (FIELDS + 1) * region;
  const int root = b[0], x0 = b[2], y0 = b[3], across = b[4] - x0, all = across * (b[5] - y0);
  double sums[6] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
  float low[3] = {INFINITE, INFINITE, INFINITE}, high[3] = {-INFINITE, -INFINITE, -INFINITE};
  for (int i = me; i < all; i += 256) {
    const int x = x0 + i % across, y = y0 + i / across, pixel = y * width + x;
    if (labels[pixel] != root) continue;
    const float area = pixel_area(xyz, x, y, height, width);
    if (area > 0.0f) sums[0] += area, sums[1] += 1.0;
    if (!(xyz[3 * pixel + 2] > 0.0f)) continue;
    sums[2] += 1.0;
    for (int c = 0; c < 3; ++c) {
      const float v = xyz[3 * pixel + c];
      sums[3 + c] += v;
      low[c] = fminf(low[c], v), high[c] = fmaxf(high[c], v);
    }
  }
  for (int f = 0; f < 6; ++f) part[f][me] = sums[f];
  for (int c = 0; c < 3; ++c) part[6 + c][me] = low[c], part[9 + c][me] = high[c];
  __syncthreads();
  for (int half = 128; half > 0; half >>= 1) {
    if (me < half) {
      for (int f = 0; f < 6; ++f) part[f][me] += part[f][me + half];
      for (int f = 6; f < 9; ++f) part[f][me] = fmin(part[f][me], part[f][me + half]);
      for (int f = 9; f < 12; ++f) part[f][me] = fmax(part[f][me], part[f][me + half]);
    }
    __syncthreads();
  }
  if (me < MEASURES) measures[MEASURES * region + me] = part[me][0];
}
