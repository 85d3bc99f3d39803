// A libcuda.so.1 without a GPU: device memory is host memory, a "cubin" is the path of a library of emulated kernels.
//
// It lets the real PyCUDA run edge_ad/runtime/driver.py call by call: contexts, memory, copies, streams, events, modules,
// packed kernel arguments, CUDA graphs. Work runs when it is queued; what may not be recorded in a graph is refused there as
// the driver refuses it. It has no timing meaning. CUDA_ON_HOST_INTEGRATED=1: act as an integrated GPU.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr int OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_FOUND = 500, ILLEGAL = 700, NOT_RECORDABLE = 900, LAUNCH = 719;
constexpr size_t MEMORY = size_t(4) << 30;

struct Config { uint32_t grid[3], block[3]; uint64_t shared; int32_t schedule; uint64_t seed; };
struct Argument { void* data; uint64_t bytes; int32_t buffer; };
struct Module { void* library; };
struct Function {
  int (*launch)(const Config*, const Argument*, char*, size_t);
  std::string signature, name;
  uint32_t block[3];
  uint64_t most_shared;
};
struct Stream { bool recording = false; };
struct Event { double at = -1; bool timing = true; };
using Work = std::function<int()>;
struct Graph { std::vector<Work> work; };

std::recursive_mutex lock;
std::map<uintptr_t, size_t> memory;   // device allocations
std::map<uintptr_t, size_t> pinned;   // page-locked ones, mapped or not
size_t used = 0;
double clock_ms = 0;
int depth = 0;  // contexts pushed, over all threads
Graph* recording = nullptr;
Stream* recorded = nullptr;

bool inside(const std::map<uintptr_t, size_t>& all, uintptr_t p, size_t n, size_t* left = nullptr) {
  auto it = all.upper_bound(p);
  if (it == all.begin()) return false;
  --it;
  if (p >= it->first + it->second || n > it->first + it->second - p) return false;
  if (left) *left = it->first + it->second - p;
  return true;
}

int queue(void* stream, Work work) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (recording && stream == recorded) {
    recording->work.push_back(std::move(work));
    return OK;
  }
  clock_ms += 0.001;
  return work();
}

int copy(uintptr_t to, uintptr_t from, size_t n, uintptr_t device) {
  if (!inside(memory, device, n)) return ILLEGAL;
  memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), n);
  return OK;
}

int run(Function* f, const Config& config, const std::vector<char>& packed) {
  std::vector<Argument> arguments;
  std::vector<char> values = packed;
  size_t at = 0;
  for (size_t start = 0; start < f->signature.size();) {
    size_t end = f->signature.find(',', start);
    if (end == std::string::npos) end = f->signature.size();
    const std::string kind = f->signature.substr(start, end - start);
    start = end + 1;
    const bool pointer = kind.back() == '*';
    const size_t size = pointer ? 8 : std::stoul(kind.substr(1));
    at = (at + size - 1) / size * size;
    if (at + size > values.size()) return INVALID;
    if (pointer) {
      uintptr_t p;
      memcpy(&p, &values[at], 8);
      size_t left = 0;
      if (p && !inside(memory, p, 1, &left) && !inside(pinned, p, 1, &left)) return ILLEGAL;
      arguments.push_back({reinterpret_cast<void*>(p), left, 1});
    } else {
      arguments.push_back({&values[at], size, 0});
    }
    at += size;
  }
  if (at != values.size() && (at + 7) / 8 * 8 != values.size()) return INVALID;
  char text[512] = "";
  if (f->launch(&config, arguments.data(), text, sizeof text)) {
    fprintf(stderr, "cuda_on_host: %s: %s\n", f->name.c_str(), text);
    return LAUNCH;
  }
  return OK;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return OK; }
int cuDeviceGetCount(int* n) { return *n = 1, OK; }
int cuDeviceGet(int* d, int i) { return *d = 0, i == 0 ? OK : INVALID; }
int cuDeviceGetName(char* name, int room, int) { return snprintf(name, size_t(room), "CUDA on the host"), OK; }
int cuDeviceTotalMem_v2(size_t* n, int) { return *n = MEMORY, OK; }
int cuDeviceComputeCapability(int* a, int* b, int) { return *a = 8, *b = 7, OK; }
int cuDeviceGetAttribute(int* v, int which, int) {
  const char* integrated = getenv("CUDA_ON_HOST_INTEGRATED");
  const std::map<int, int> known = {{75, 8}, {76, 7}, {1, 1024}, {16, 2}, {13, 1000000}, {36, 1000000}, {37, 64}};
  *v = which == 18 ? integrated && *integrated == '1' : known.count(which) ? known.at(which) : 0;
  return OK;
}
int cuDevicePrimaryCtxRetain(void** c, int) { return *c = &memory, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxPushCurrent_v2(void*) { return ++depth, OK; }
int cuCtxPopCurrent_v2(void** c) { return depth ? (--depth, *c = &memory, OK) : 201; }
int cuCtxGetDevice(int* d) { return *d = 0, OK; }
int cuCtxDetach(void*) { return OK; }
int cuCtxSynchronize() { return recording ? NOT_RECORDABLE : OK; }

int cuMemAlloc_v2(uintptr_t* p, size_t n) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (recording) return NOT_RECORDABLE;
  if (!depth) return 201;
  if (used + n > MEMORY) return NO_MEMORY;
  void* data = aligned_alloc(256, (n + 255) / 256 * 256);
  memset(data, 0xA5, n);
  *p = reinterpret_cast<uintptr_t>(data);
  return memory[*p] = n, used += n, OK;
}
int cuMemFree_v2(uintptr_t p) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto it = memory.find(p);
  if (it == memory.end()) return INVALID;
  used -= it->second;
  memory.erase(it);
  return free(reinterpret_cast<void*>(p)), OK;
}
int cuMemGetInfo_v2(size_t* free_, size_t* total) { return *free_ = MEMORY - used, *total = MEMORY, OK; }
int cuMemHostAlloc(void** p, size_t n, unsigned) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  *p = aligned_alloc(256, (n + 255) / 256 * 256);
  return pinned[reinterpret_cast<uintptr_t>(*p)] = n, OK;
}
int cuMemFreeHost(void* p) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  return pinned.erase(reinterpret_cast<uintptr_t>(p)) ? (free(p), OK) : INVALID;
}
int cuMemHostGetDevicePointer_v2(uintptr_t* d, void* p, unsigned) { return *d = reinterpret_cast<uintptr_t>(p), OK; }

int cuMemcpyHtoD_v2(uintptr_t to, void* from, size_t n) {
  return recording ? NOT_RECORDABLE : copy(to, reinterpret_cast<uintptr_t>(from), n, to);
}
int cuMemcpyDtoH_v2(void* to, uintptr_t from, size_t n) {
  return recording ? NOT_RECORDABLE : copy(reinterpret_cast<uintptr_t>(to), from, n, from);
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, void* from, size_t n, void* s) {
  return queue(s, [=] { return copy(to, reinterpret_cast<uintptr_t>(from), n, to); });
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t n, void* s) {
  return queue(s, [=] { return copy(reinterpret_cast<uintptr_t>(to), from, n, from); });
}
int cuMemsetD8Async(uintptr_t p, unsigned char v, size_t n, void* s) {
  return queue(s, [=] { return inside(memory, p, n) ? (memset(reinterpret_cast<void*>(p), v, n), OK) : ILLEGAL; });
}

int cuStreamCreate(void** s, unsigned flags) { return flags == 1 ? (*s = new Stream, OK) : INVALID; }
int cuStreamDestroy_v2(void* s) { return delete static_cast<Stream*>(s), OK; }
int cuStreamSynchronize(void*) { return recording ? NOT_RECORDABLE : OK; }
int cuStreamWaitEvent(void*, void* e, unsigned) { return static_cast<Event*>(e)->at < 0 ? INVALID : OK; }
int cuEventCreate(void** e, unsigned flags) { return *e = new Event{-1, !(flags & 2)}, OK; }
int cuEventDestroy_v2(void* e) { return delete static_cast<Event*>(e), OK; }
int cuEventRecord(void* e, void*) { return static_cast<Event*>(e)->at = clock_ms += 0.001, OK; }
int cuEventSynchronize(void*) { return OK; }
int cuEventElapsedTime_v2(float* ms, void* a, void* b) {
  const Event *x = static_cast<Event*>(a), *y = static_cast<Event*>(b);
  if (!x->timing || !y->timing || x->at < 0 || y->at < 0) return INVALID;
  return *ms = float(y->at - x->at), OK;
}

int cuModuleLoadDataEx(void** m, const void* image, unsigned, void*, void*) {
  if (recording) return NOT_RECORDABLE;
  void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  return library ? (*m = new Module{library}, OK) : 200;
}
int cuModuleLoadData(void** m, const void* image) { return cuModuleLoadDataEx(m, image, 0, nullptr, nullptr); }
int cuModuleUnload(void* m) { return delete static_cast<Module*>(m), OK; }
int cuModuleGetFunction(void** f, void* m, const char* name) {
  void* library = static_cast<Module*>(m)->library;
  void* launch = dlsym(library, (std::string("emu_launch_") + name).c_str());
  void* signature = dlsym(library, (std::string("emu_signature_") + name).c_str());
  if (!launch || !signature) return NOT_FOUND;
  auto* made = new Function{};
  made->launch = reinterpret_cast<decltype(made->launch)>(launch);
  made->signature = reinterpret_cast<const char* (*)()>(signature)();
  for (size_t i; (i = made->signature.find("const ")) != std::string::npos;) made->signature.erase(i, 6);
  made->name = name;
  made->most_shared = 48 << 10;
  return *f = made, OK;
}
int cuFuncSetBlockShape(void* f, int x, int y, int z) {
  uint32_t* b = static_cast<Function*>(f)->block;
  return b[0] = uint32_t(x), b[1] = uint32_t(y), b[2] = uint32_t(z), OK;
}
int cuFuncSetAttribute(void* f, int which, int v) {
  if (which == 8) static_cast<Function*>(f)->most_shared = uint64_t(v);
  return which == 8 && v <= 227 << 10 ? OK : INVALID;
}
int cuFuncGetAttribute(int* v, int, void*) { return *v = 0, OK; }
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* s, void**, void** extra) {
  auto* function = static_cast<Function*>(f);
  if (!extra || extra[0] != reinterpret_cast<void*>(1) || extra[2] != reinterpret_cast<void*>(2)) return INVALID;
  if (!gx || !gy || !gz || gy > 65535 || bx * by * bz > 1024 || shared > function->most_shared) return INVALID;
  const char* packed = static_cast<char*>(extra[1]);
  const std::vector<char> values(packed, packed + *static_cast<size_t*>(extra[3]));
  Config config{{gx, gy, gz}, {bx, by, bz}, shared, 0, 0};
  return queue(s, [=] { return run(function, config, values); });
}

int cuStreamBeginCapture_v2(void* s, int mode) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (recording || mode != 1) return INVALID;
  return recording = new Graph, recorded = static_cast<Stream*>(s), OK;
}
int cuStreamEndCapture(void* s, void** graph) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (!recording || s != recorded) return INVALID;
  *graph = recording;
  return recording = nullptr, recorded = nullptr, OK;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  return flags ? INVALID : (*executable = new Graph(*static_cast<Graph*>(graph)), OK);
}
int cuGraphLaunch(void* executable, void*) {
  for (const Work& work : static_cast<Graph*>(executable)->work)
    if (int code = work()) return code;
  return OK;
}
int cuGraphExecDestroy(void* executable) { return delete static_cast<Graph*>(executable), OK; }
int cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), OK; }
}
