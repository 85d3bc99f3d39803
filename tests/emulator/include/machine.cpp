// The machine behind cuda_block_emulator.h: fibers, barriers, warp operations, schedules, buffers with guards.
#include "cuda_block_emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));

#ifndef EMU_UCONTEXT
#if defined(__x86_64__)
asm(R"(.text
.p2align 4
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp,(%rdi); mov %rsi,%rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
.size emu_switch,.-emu_switch
)");
#else
asm(R"(.text
.p2align 4
.globl emu_switch
.hidden emu_switch
.type emu_switch,%function
emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emu_switch,.-emu_switch
)");
#endif
#endif

namespace emu {

Machine S;

uint32_t draw() {  // xorshift64*
    S.random ^= S.random >> 12, S.random ^= S.random << 25, S.random ^= S.random >> 27;
    return static_cast<uint32_t>((S.random * 0x2545F4914F6CDD1Dull) >> 32);
}

void set_ready(Thread& t) {
    t.state = READY;
    S.warps[t.warp].ready |= 1u << t.lane;
    S.ready_warps |= 1u << t.warp;
}

void set_waiting(Thread& t, State state) {
    t.state = state;
    if (!(S.warps[t.warp].ready &= ~(1u << t.lane))) S.ready_warps &= ~(1u << t.warp);
}

void pause() {
    Thread* t = S.current;
    enter_context(t->context, S.launcher);
    S.current = t;
}

[[noreturn]] void fail(const char* format, ...) {
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    S.error = text;
    enter_context(S.current->context, S.launcher, true);
    abort();
}

std::string name_of(const Thread& t) {
    char text[120];
    snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", t.tid.x, t.tid.y, t.tid.z, S.bid.x, S.bid.y,
             S.bid.z);
    return text;
}

// --- the block barrier ---------------------------------------------------------------------------------------------

void release_barrier() {
    S.barrier_result = 0;
    for (int i = 0; i < S.n; ++i)
        if (S.threads[i].state == AT_BARRIER) S.barrier_result += S.threads[i].predicate != 0;
    int all = S.waiting;
    for (int i = 0; i < S.n; ++i) {
        Thread& t = S.threads[i];
        if (t.state != AT_BARRIER) continue;
        t.out = static_cast<uint64_t>(t.kind == COUNT ? S.barrier_result
                                      : t.kind == AND ? S.barrier_result == all
                                                      : S.barrier_result > 0);
        ++t.epoch;
        set_ready(t);
    }
    S.waiting = 0;
}

int barrier(int line, Reduction kind, int predicate) {
    Thread& t = *S.current;
    for (int i = 0; S.waiting && i < S.n; ++i) {
        const Thread& other = S.threads[i];
        if (other.state != AT_BARRIER) continue;
        if (other.line != line)
            fail("%s waits at the barrier of line %d and another at that of line %d", name_of(t).c_str(), line, other.line);
        break;
    }
    t.line = line, t.kind = kind, t.predicate = predicate;
    set_waiting(t, AT_BARRIER);
    if (++S.waiting == S.alive) release_barrier();
    pause();
    return static_cast<int>(t.out);
}

// --- warp collectives ----------------------------------------------------------------------------------------------

uint64_t reduced(int operation, uint64_t x, uint64_t y) {
    const uint32_t a = uint32_t(x), b = uint32_t(y);
    const int32_t i = int32_t(a), j = int32_t(b);
    switch (operation) {
        case ADD: return uint32_t(a + b);
        case MIN_SIGNED: return uint32_t(i < j ? i : j);
        case MAX_SIGNED: return uint32_t(i > j ? i : j);
        case MIN_UNSIGNED: return a < b ? a : b;
        case MAX_UNSIGNED: return a > b ? a : b;
        case BIT_OR: return a | b;
        default: return a & b;
    }
}

// __syncwarp orders the memory accesses of its lanes; the other warp operations do not.
void order_lanes(Thread* lanes, uint32_t mask) {
    uint32_t joined[32] = {};
    for (uint32_t m = mask; m; m &= m - 1) {
        Thread& t = lanes[__builtin_ctz(m)];
        t.known[t.lane] = ++t.clock;
        for (int l = 0; l < 32; ++l) joined[l] = joined[l] > t.known[l] ? joined[l] : t.known[l];
    }
    for (uint32_t m = mask; m; m &= m - 1) memcpy(lanes[__builtin_ctz(m)].known, joined, sizeof joined);
}

// Lets a warp's collective happen when every lane of its mask that has not exited has come.
void try_collective(Warp& w, Thread* lanes, uint32_t mask) {
    uint32_t need = mask & w.exists & ~w.done;
    for (uint32_t m = need; m; m &= m - 1) {
        const Thread& t = lanes[__builtin_ctz(m)];
        if (t.state != AT_WARP || t.mask != mask) return;
    }
    if (!need) return;
    const int kind = lanes[__builtin_ctz(need)].kind;
    uint64_t ballot = 0, all = lanes[__builtin_ctz(need)].in;
    for (uint32_t m = need & (need - 1); kind == REDUCE && m; m &= m - 1)
        all = reduced(lanes[__builtin_ctz(need)].line, all, lanes[__builtin_ctz(m)].in);
    for (int l = 0; l < 32; ++l) {
        w.snapshot[l] = need >> l & 1 ? lanes[l].in : ~0ull;  // no such lane: undefined, so NaN or -1
        if ((need >> l & 1) && lanes[l].in) ballot |= 1ull << l;
    }
    for (uint32_t m = need; m; m &= m - 1) {
        Thread& t = lanes[__builtin_ctz(m)];
        if (t.kind == SHUFFLE) t.out = w.snapshot[t.line];
        if (t.kind == VOTE) t.out = ballot;
        if (t.kind == REDUCE) t.out = all;
        if (t.kind == MATCH) {
            t.out = 0;
            for (uint32_t k = need; k; k &= k - 1) {
                const int l = __builtin_ctz(k);
                if (w.snapshot[l] == t.in) t.out |= 1ull << l;
            }
        }
        if (t.kind != kind) {
            S.error = name_of(t) + ": the lanes of one mask are in different warp operations";
            return;
        }
    }
    if (kind == SYNC) order_lanes(lanes, need);
    for (uint32_t m = need; m; m &= m - 1) set_ready(lanes[__builtin_ctz(m)]);
}

uint64_t collective(uint32_t mask, Collective kind, uint64_t value, int source) {
    Thread& t = *S.current;
    Warp& w = S.warps[t.warp];
    if (!(mask >> t.lane & 1)) fail("%s: lane %d is not in its own mask %08x", name_of(t).c_str(), t.lane, mask);
    t.in = value, t.mask = mask, t.kind = kind, t.line = source;
    set_waiting(t, AT_WARP);
    try_collective(w, &t - t.lane, mask);
    pause();
    return t.out;
}

// --- running -------------------------------------------------------------------------------------------------------

void thread_main() {
    entered(S.launcher);
    S.body(S.arguments);
    Thread& t = *S.current;
    Warp& w = S.warps[t.warp];
    set_waiting(t, DONE);
    w.done |= 1u << t.lane;
    if (--S.alive && S.waiting == S.alive) release_barrier();  // a thread that exited counts as arrived
    for (uint32_t m = w.exists & ~w.done; m; m &= m - 1) {
        Thread& other = (&t - t.lane)[__builtin_ctz(m)];
        if (other.state == AT_WARP) try_collective(w, &t - t.lane, other.mask);
    }
    enter_context(t.context, S.launcher, true);
    abort();
}

int pick(uint32_t set) {
    if (S.schedule == FORWARD) return __builtin_ctz(set);
    if (S.schedule == REVERSE) return 31 - __builtin_clz(set);
    const unsigned r = draw() & 31;
    const uint32_t turned = r ? set >> r | set << (32 - r) : set;
    return (__builtin_ctz(turned) + r) & 31;
}

// Random order only: another thread may come in between, as it may before any atomic.
void maybe_yield() {
    if (S.schedule == RANDOM && !(draw() & 3)) pause();
}

struct Buffer {
    char* memory;
    char* data;
    Argument from;
    explicit Buffer(const Argument& a) : from(a) {
#if defined(__SANITIZE_ADDRESS__)
        memory = data = static_cast<char*>(malloc(a.bytes));  // exact: the sanitizer has its own guards
#else
        memory = static_cast<char*>(aligned_alloc(GUARD, (a.bytes + 3 * GUARD - 1) / GUARD * GUARD));
        data = memory + GUARD;
        memset(memory, 0xA5, GUARD);
        memset(data + a.bytes, 0xA5, GUARD);
#endif
        if (a.bytes) memcpy(data, a.data, a.bytes);
    }
    bool intact() const {
#if !defined(__SANITIZE_ADDRESS__)
        for (unsigned i = 0; i < GUARD; ++i)
            if (memory[i] != static_cast<char>(0xA5) || data[from.bytes + i] != static_cast<char>(0xA5)) return false;
#endif
        return true;
    }
};

// --- races ---------------------------------------------------------------------------------------------------------
// A race build instruments the kernel's loads and stores (g++ -fsanitize=thread, whose hooks are below instead of its
// library). Two accesses of different threads to one byte, one of them a store, race unless a block barrier, a __syncwarp
// of both lanes or atomics on both sides order them. Blocks are never ordered. `volatile` counts as atomic: the compilers
// make one access of it. Kept a byte: the last store, and the first and the last reader since.
namespace race {
#ifdef EMU_RACE
struct Access {
    uint32_t block = ~0u, thread = 0, clock = 0;
    int epoch = 0;
    bool atomic = false;
    const char* pc = nullptr;
};
struct Cell {
    Access store, first, last;
};
struct Region {
    const char* start;
    size_t bytes;
    int number;  // of the buffer; -1: shared memory
    std::vector<Cell> cells;
};
std::vector<Region> regions;

void track(const char* start, size_t bytes, int number) {
    if (bytes) regions.push_back(Region{start, bytes, number, std::vector<Cell>(bytes)});
}

void start(const std::vector<Buffer>& buffers, const Buffer& dynamic) {
    regions.clear();
    track(dynamic.data, dynamic.from.bytes, -1);
    track(__start_emu_shared, static_cast<size_t>(__stop_emu_shared - __start_emu_shared), -1);
    for (size_t i = 0; i < buffers.size(); ++i) track(buffers[i].data, buffers[i].from.bytes, static_cast<int>(i));
}

void end() { regions.clear(); }

void new_block() {
    for (Region& r : regions)
        if (r.number < 0) r.cells.assign(r.bytes, Cell());
}

bool ordered(const Access& before, const Thread& now, uint32_t block) {
    if (before.block == ~0u) return true;
    if (before.block != block) return false;
    const uint32_t thread = static_cast<uint32_t>(&now - S.threads.data());
    if (before.thread == thread || before.epoch < now.epoch) return true;
    if (before.thread / 32 != thread / 32) return false;
    return now.known[before.thread & 31] > before.clock;
}

[[noreturn]] void tell(const Region& r, size_t at, const Access& a, const char* pc, bool store) {
    char place[60];
    if (r.number < 0) snprintf(place, sizeof place, "shared memory");
    else snprintf(place, sizeof place, "byte %zu of buffer %d", at, r.number);
    fail("race in %s: %s %s at {%p}, thread %u of block %u had used it at {%p}", place, name_of(*S.current).c_str(),
         store ? "stores" : "loads", pc, a.thread, a.block, a.pc);
}

void access(const void* p, size_t bytes, bool store, bool atomic, const void* pc) {
    const char* address = static_cast<const char*>(p);
    if (!S.current || regions.empty()) return;
    for (Region& r : regions) {
        if (address < r.start || address >= r.start + r.bytes) continue;
        const uint32_t block = (S.bid.z * S.grid.y + S.bid.y) * S.grid.x + S.bid.x;
        const Thread& t = *S.current;
        const Access mine{block, static_cast<uint32_t>(&t - S.threads.data()), t.clock, t.epoch, atomic,
                          static_cast<const char*>(pc)};
        // Words are kept by their first byte: memory that is used both as words and as bytes is watched for each apart.
        const size_t step = bytes >= 4 ? 4 : bytes;
        for (size_t i = static_cast<size_t>(address - r.start), end = i + bytes; i < end && i < r.bytes; i += step) {
            Cell& c = r.cells[i];
            if (!(atomic && c.store.atomic) && !ordered(c.store, t, block)) tell(r, i, c.store, mine.pc, store);
            if (store) {
                for (const Access* reader : {&c.first, &c.last})
                    if (!(atomic && reader->atomic) && !ordered(*reader, t, block)) tell(r, i, *reader, mine.pc, store);
                c.store = mine, c.first = c.last = Access();
            } else {
                if (c.first.block == ~0u) c.first = mine;
                c.last = mine;
            }
        }
        return;
    }
}
#else
void start(const std::vector<Buffer>&, const Buffer&) {}
void end() {}
void new_block() {}
#endif
}  // namespace race

void record_atomic(const void* p, size_t bytes) {
#ifdef EMU_RACE
    race::access(p, bytes, true, true, __builtin_return_address(0));
#else
    (void)p, (void)bytes;
#endif
}

// No sanitizer: the red zones between shared arrays are filled as well.
__attribute__((no_sanitize("address", "undefined"), noinline)) void poison_shared() {
    for (volatile char* p = __start_emu_shared; p < __stop_emu_shared; ++p) *p = static_cast<char>(0xFF);
}

void run_block(size_t shared) {
    S.n = static_cast<int>(S.block.x * S.block.y * S.block.z);
    S.alive = S.n, S.waiting = 0, S.ready_warps = 0;
    for (Warp& w : S.warps) w.ready = w.done = w.exists = 0;
    for (int i = 0; i < S.n; ++i) {
        Thread& t = S.threads[i];
        const unsigned u = static_cast<unsigned>(i);
        t.tid = uint3{u % S.block.x, u / S.block.x % S.block.y, u / (S.block.x * S.block.y)};
        t.lane = i & 31, t.warp = i >> 5;
        t.epoch = 0, t.clock = 0;
        memset(t.known, 0, sizeof t.known);
        S.warps[t.warp].exists |= 1u << t.lane;
        prepare(t.context, thread_main);
        set_ready(t);
    }
    poison_shared();
    race::new_block();
    if (shared) memset(S.dynamic, 0xFF, shared);
    while (S.alive) {
        if (!S.ready_warps) {
            for (int i = 0; i < S.n; ++i)
                if (S.threads[i].state == AT_BARRIER || S.threads[i].state == AT_WARP) {
                    const Thread& t = S.threads[i];
                    S.error = name_of(t) + " waits for ever " +
                              (t.state == AT_BARRIER ? "at the barrier of line " + std::to_string(t.line)
                                                     : std::string("in a warp operation")) +
                              ": others never come";
                    return;
                }
            return;
        }
        const int w = pick(S.ready_warps);
        S.current = &S.threads[w * 32 + pick(S.warps[w].ready)];
        enter_context(S.launcher, S.current->context);
        if (!S.error.empty()) return;
    }
}

// Arrays that share memory (views of one array) share it in the copy as well.
std::vector<Argument> merged(const Argument* given, size_t count) {
    std::vector<Argument> out;
    for (size_t i = 0; i < count; ++i) {
        if (!given[i].buffer || !given[i].data) continue;
        char* low = static_cast<char*>(given[i].data);
        char* high = low + given[i].bytes;
        for (size_t k = 0; k < out.size();) {
            char* other = static_cast<char*>(out[k].data);
            const bool apart = other >= high || other + out[k].bytes <= low;
            if (apart && other != low) {
                ++k;
                continue;
            }
            low = other < low ? other : low;
            high = other + out[k].bytes > high ? other + out[k].bytes : high;
            out.erase(out.begin() + static_cast<long>(k));
            k = 0;
        }
        out.push_back(Argument{low, static_cast<uint64_t>(high - low), 1});
    }
    return out;
}


int launch(void (*body)(void*), void (*kernel)(), size_t count, const Config* c, const Argument* given, char* text,
                  size_t room) {
    for (size_t i = 0; !S.error.empty() && i < S.threads.size(); ++i) forget(S.threads[i].context);
    S.error.clear();
    S.grid = dim3(c->grid[0], c->grid[1], c->grid[2]);
    S.block = dim3(c->block[0], c->block[1], c->block[2]);
    S.schedule = c->schedule, S.random = c->seed * 2 + 1;
    const size_t threads = size_t(S.block.x) * S.block.y * S.block.z;
    if (threads < 1 || threads > 1024)
        S.error = "a block of " + std::to_string(threads) + " threads; 1 to 1024 are possible";
    for (size_t i = S.threads.size(); S.error.empty() && i < threads; ++i) {
        S.threads.emplace_back();
        make_stack(S.threads.back().context, STACK);
    }
    std::vector<void*> values(count), pointers(count);
    const std::vector<Argument> regions = merged(given, count);
    std::vector<Buffer> buffers;
    buffers.reserve(regions.size());
    for (const Argument& r : regions) buffers.emplace_back(r);
    for (size_t i = 0; i < count; ++i) {
        values[i] = given[i].buffer ? &pointers[i] : given[i].data;
        if (!given[i].buffer || !given[i].data) continue;  // a value, or a null pointer
        const char* at = static_cast<const char*>(given[i].data);
        for (const Buffer& b : buffers) {
            const char* start = static_cast<const char*>(b.from.data);
            if (at >= start && at + given[i].bytes <= start + b.from.bytes) pointers[i] = b.data + (at - start);
        }
    }
    std::vector<char> nothing(c->shared);
    Buffer dynamic(Argument{nothing.data(), c->shared, 1});
    S.dynamic = dynamic.data;
    Bound bound{kernel, values.data()};
    S.arguments = &bound, S.body = body;
    race::start(buffers, dynamic);
    const uint64_t blocks = uint64_t(S.grid.x) * S.grid.y * S.grid.z;
    std::vector<uint64_t> order(blocks);
    for (uint64_t i = 0; i < blocks; ++i) order[i] = S.schedule == REVERSE ? blocks - 1 - i : i;
    for (uint64_t i = blocks; S.schedule == RANDOM && i > 1; --i) {
        const uint64_t k = draw() % i, kept = order[k];
        order[k] = order[i - 1], order[i - 1] = kept;
    }
    for (uint64_t k = 0; k < blocks && S.error.empty(); ++k) {
        const uint64_t b = order[k];
        S.bid = uint3{uint32_t(b % S.grid.x), uint32_t(b / S.grid.x % S.grid.y), uint32_t(b / S.grid.x / S.grid.y)};
        run_block(c->shared);
        if (S.error.empty() && !dynamic.intact()) S.error = "a write outside the dynamic shared memory";
    }
    race::end();
    for (size_t i = 0; i < buffers.size(); ++i) {
        if (S.error.empty() && !buffers[i].intact()) S.error = "a write outside buffer " + std::to_string(i);
        const Argument& a = buffers[i].from;
        if (a.bytes) memcpy(a.data, buffers[i].data, a.bytes);
        free(buffers[i].memory);
    }
    free(dynamic.memory);
    snprintf(text, room, "%s", S.error.c_str());
    return S.error.empty() ? 0 : 1;
}

}  // namespace emu

#ifdef EMU_RACE
#define HOOKS(n)                                                                                                      \
    void __tsan_read##n(void* p) { emu::race::access(p, n, false, false, __builtin_return_address(0)); }              \
    void __tsan_write##n(void* p) { emu::race::access(p, n, true, false, __builtin_return_address(0)); }              \
    void __tsan_unaligned_read##n(void* p) { emu::race::access(p, n, false, false, __builtin_return_address(0)); }    \
    void __tsan_unaligned_write##n(void* p) { emu::race::access(p, n, true, false, __builtin_return_address(0)); }    \
    void __tsan_volatile_read##n(void* p) { emu::race::access(p, n, false, true, __builtin_return_address(0)); }      \
    void __tsan_volatile_write##n(void* p) { emu::race::access(p, n, true, true, __builtin_return_address(0)); }
extern "C" {
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, size_t n) { emu::race::access(p, n, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { emu::race::access(p, n, true, false, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) { return *p; }  // guards of the emulator's own statics
}
#endif
