// One axis of a smoothing filter: what the map stage uses where a filter reaches so far that smooth.cu's tile with its rim
// does not fit shared memory. References: edge_ad.runtime.maps.smooth, score_reference.filter_axis.

// in : (size, size); zeros lie beyond the border. taps : 2 radius + 1 weights, used along rows or (vertical) columns, in
// rising order. The result is times `scale`. valid, weight : null, or as in smooth.cu: the result over max(weight, 1e-6), 0
// where not valid. out : (size, size), written; not `in`. Grid: ceil(size * size / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
score_filter(const float* __restrict__ in, int size, int radius, const float* __restrict__ taps, float scale, int vertical,
             const unsigned char* __restrict__ valid, const float* __restrict__ weight, float* __restrict__ out) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= size * size) return;
  const int at = vertical ? pixel / size : pixel % size, step = vertical ? size : 1;
  const int first = max(-radius, -at), last = min(radius, size - 1 - at);
  float sum = 0.0f;
  for (int t = first; t <= last; ++t) sum += in[pixel + t * step] * taps[t + radius];
  sum *= scale;
  if (weight) sum = !valid || valid[pixel] ? sum / fmaxf(weight[pixel], 1e-6f) : 0.0f;
  out[pixel] = sum;
}
