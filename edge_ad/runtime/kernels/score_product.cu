// The matrix products that stay per pixel (second layers of the MLPs): C[m, n] = A[m, k] W[n, k]^T + bias[n], FP32 sums.
//
// score_product_f32: 64 x 64 tile, 16 deep, 256 threads with 4 x 4 sums each, FP32 units.
// score_product_f16: FP16 operands on the tensor cores (mma.m16n8k16, SM 8.0 and newer), 64 x 64 tile, 32 deep, 4 warps of
// 32 x 32. Both fetch the next tile while the current one is multiplied. A and W have rows of `lda` and `ldw` elements,
// multiples of 32 that are zero beyond the true depth; k is that padded depth. m = min(count, *total - first) rows.
// triangular : W is zero left of its diagonal (edge_ad.export.graphs.Turned), so the products begin there.
#include "score_common.cuh"

#define TILE 64

extern "C" __global__ void __launch_bounds__(256)
score_product_f32(const float* __restrict__ a, int lda, const float* __restrict__ w, int ldw,
                  const float* __restrict__ bias, float* __restrict__ c, int ldc, const int* __restrict__ total, int first, int count,
                  int n, int k, int triangular) {
  const int DEPTH = 16;
  __shared__ float left[16][64 + 4];
  __shared__ float right[16][64 + 4];
  const int m = min(count, *total - first);
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  if (row0 >= m) return;  // the whole block
  const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  const int load_row = threadIdx.x >> 2, load_k = (threadIdx.x & 3) * 4;  // 64 rows x 16 deep, 4 values a thread
  const bool has_left = row0 + load_row < m, has_right = column0 + load_row < n;
  const float* from_left = a + static_cast<long long>(row0 + load_row) * lda + load_k;
  const float* from_right = w + static_cast<long long>(column0 + load_row) * ldw + load_k;
  const int begin = triangular ? column0 / DEPTH * DEPTH : 0;  // W is zero left of its diagonal
  float next_left[4], next_right[4], sum[4][4] = {};
  for (int e = 0; e < 4; ++e) {
    next_left[e] = has_left && begin < k ? from_left[begin + e] : 0.0f;
    next_right[e] = has_right && begin < k ? from_right[begin + e] : 0.0f;
  }
  for (int depth = begin; depth < k; depth += DEPTH) {
    for (int e = 0; e < 4; ++e) {
      left[load_k + e][load_row] = next_left[e];
      right[load_k + e][load_row] = next_right[e];
    }
    __syncthreads();
    if (depth + DEPTH < k) {
      for (int e = 0; e < 4; ++e) {
        next_left[e] = has_left ? from_left[depth + DEPTH + e] : 0.0f;
        next_right[e] = has_right ? from_right[depth + DEPTH + e] : 0.0f;
      }
    }
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      float x[4], y[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        x[e] = left[d][ty * 4 + e];
        y[e] = right[d][tx * 4 + e];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += x[i] * y[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = row0 + ty * 4 + i;
    if (row >= m) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = column0 + tx * 4 + j;
      if (column < n) c[static_cast<long long>(row) * ldc + column] = sum[i][j] + bias[column];
    }
  }
}

// One 16 x 8 += 16 x 16 . 16 x 8 product of a warp, FP16 operands (two a register), FP32 sums. The layout is the PTX
// manual's: with g = lane / 4 and t = lane % 4, register r of A holds row g + 8 (r & 1), columns 2 t + 8 (r >> 1) + {0, 1};
// register r of B holds rows 2 t + 8 r + {0, 1} of column g; sum s is row g + 8 (s >> 1), column 2 t + (s & 1).
#ifdef EDGE_AD_EMULATED
__device__ inline void multiply(float* sum, const unsigned* a, const unsigned* b) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  for (int pair = 0; pair < 8; ++pair) {  // two of the 16 steps in depth
    const int high = pair >> 2, owner = pair & 3;
    const unsigned upper = __shfl_sync(FULL_WARP, a[2 * high], g * 4 + owner);
    const unsigned lower = __shfl_sync(FULL_WARP, a[2 * high + 1], g * 4 + owner);
    const unsigned even = __shfl_sync(FULL_WARP, b[high], 8 * t + owner);
    const unsigned odd = __shfl_sync(FULL_WARP, b[high], 8 * t + 4 + owner);
    for (int e = 0; e < 2; ++e) {
      const float u = half_to_float(static_cast<half_bits>(upper >> (16 * e)));
      const float l = half_to_float(static_cast<half_bits>(lower >> (16 * e)));
      const float p = half_to_float(static_cast<half_bits>(even >> (16 * e)));
      const float q = half_to_float(static_cast<half_bits>(odd >> (16 * e)));
      sum[0] += u * p;
      sum[1] += u * q;
      sum[2] += l * p;
      sum[3] += l * q;
    }
  }
}
#else
__device__ __forceinline__ void multiply(float* sum, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

extern "C" __global__ void __launch_bounds__(128)
score_product_f16(const half_bits* __restrict__ a, int lda, const half_bits* __restrict__ w, int ldw,
                  const float* __restrict__ bias, float* __restrict__ c, int ldc, const int* __restrict__ total, int first, int count,
                  int n, int k, int triangular) {
  // Pairs of halves as 32-bit words; a pitch of 20 words puts the 8 rows x 4 words of a fragment into 32 banks.
  const int DEPTH = 32;
  __shared__ unsigned left[64 * 20];
  __shared__ unsigned right[64 * 20];
  const int PITCH = 20;
  const int m = min(count, *total - first);
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  if (row0 >= m) return;  // the whole block
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int g = lane >> 2, t = lane & 3;
  const int warp_row = (warp >> 1) * 32, warp_column = (warp & 1) * 32;
  const int load_row = threadIdx.x >> 1, load_word = (threadIdx.x & 1) * 8;  // 64 rows x 16 words, 8 words a thread
  const bool has_left = row0 + load_row < m, has_right = column0 + load_row < n;
  const unsigned* from_left = reinterpret_cast<const unsigned*>(a + static_cast<long long>(row0 + load_row) * lda) + load_word;
  const unsigned* from_right =
      reinterpret_cast<const unsigned*>(w + static_cast<long long>(column0 + load_row) * ldw) + load_word;
  const int begin = triangular ? column0 / DEPTH * DEPTH : 0;  // W is zero left of its diagonal
  unsigned next_left[8], next_right[8];
  float sum[2][4][4] = {};
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    next_left[e] = has_left && begin < k ? from_left[begin / 2 + e] : 0u;
    next_right[e] = has_right && begin < k ? from_right[begin / 2 + e] : 0u;
  }
  for (int depth = begin; depth < k; depth += DEPTH) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      left[load_row * PITCH + load_word + e] = next_left[e];
      right[load_row * PITCH + load_word + e] = next_right[e];
    }
    __syncthreads();
    if (depth + DEPTH < k) {
      const int ahead = (depth + DEPTH) / 2;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        next_left[e] = has_left ? from_left[ahead + e] : 0u;
        next_right[e] = has_right ? from_right[ahead + e] : 0u;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // 16 of the 32 deep
      unsigned x[2][4], y[4][2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int r = 0; r < 4; ++r)
          x[i][r] = left[(warp_row + 16 * i + g + 8 * (r & 1)) * PITCH + 8 * half + t + 4 * (r >> 1)];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int r = 0; r < 2; ++r) y[j][r] = right[(warp_column + 8 * j + g) * PITCH + 8 * half + t + 4 * r];
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) multiply(sum[i][j], x[i], y[j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const int row = row0 + warp_row + 16 * i + g + 8 * (s >> 1), column = column0 + warp_column + 8 * j + 2 * t + (s & 1);
        if (row < m && column < n) c[static_cast<long long>(row) * ldc + column] = sum[i][j][s] + bias[column];
      }
}
