// What CUDA gives the kernels, for a C++ compiler: they become functions of the host, run thread by thread.
#include <math.h>
#include <pthread.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define NOT_INLINE static __attribute__((noinline))

struct Dim { unsigned int x; };
static thread_local Dim threadIdx = {0}, blockIdx = {0}, blockDim = {1}, gridDim = {1};

struct int2 { int x, y; };
struct float4 { float x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define __popc __builtin_popcount
#define __fmaf_rn __builtin_fmaf
#define __ffs __builtin_ffs
template <class Number> Number atomicAdd(Number* at, Number value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

// Blocks of one thread run at the same time.
alignas(16) static float block_cells[1 << 18];
alignas(16) static thread_local float thread_cells[1 << 18];
#define DYNAMIC_SHARED(name) float* name = blockDim.x > 1 ? block_cells : thread_cells

static pthread_barrier_t meeting;
static inline void __syncthreads() {
    if (blockDim.x > 1) pthread_barrier_wait(&meeting);
}

#ifdef HOST_WARP
// Warps of 32 threads, which meet for everything that they do together.
#define WARP_SIZE 32
static pthread_barrier_t warp_meeting[32];
static int warp_values[32][32];
static inline void __syncwarp() { pthread_barrier_wait(&warp_meeting[threadIdx.x / 32]); }
template <class Value> static inline Value of_lanes(int value, Value (*found)(const int*, int), int number) {
    int* values = warp_values[threadIdx.x / 32];
    values[threadIdx.x % 32] = value;
    __syncwarp();
    const Value result = found(values, number);
    __syncwarp();
    return result;
}
static inline unsigned int mask_of(const int* values, int) {
    unsigned int mask = 0;
    for (int k = 0; k < 32; k++) mask |= values[k] ? 1u << k : 0u;
    return mask;
}
static inline int sum_of(const int* values, int) {
    int total = 0;
    for (int k = 0; k < 32; k++) total += values[k];
    return total;
}
static inline int least_of(const int* values, int) {
    int least = values[0];
    for (int k = 1; k < 32; k++) least = values[k] < least ? values[k] : least;
    return least;
}
static inline int value_of(const int* values, int lane) { return values[lane]; }
static inline float shuffle_xor(float value, int mask) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return __int_as_float(of_lanes<int>(bits, value_of, (threadIdx.x % 32) ^ mask));
}
#define WARP_MASK(seen) of_lanes<unsigned int>((seen) ? 1 : 0, mask_of, 0)
#define WARP_SUM(value) of_lanes<int>((int)(value), sum_of, 0)
#define WARP_MIN(value) of_lanes<int>((value), least_of, 0)
#define WARP_MAX(value) (-of_lanes<int>(-(value), least_of, 0))
#define LANES_BELOW ((1u << (threadIdx.x % 32)) - 1)
#define SHUFFLE_XOR(value, mask) shuffle_xor(value, mask)
#else
// Every thread is a warp of its own.
#define WARP_SIZE 1
#define WARP_MASK(seen) ((seen) ? 1u : 0u)
#define WARP_SUM(value) (value)
#define WARP_MIN(value) (value)
#define WARP_MAX(value) (value)
#define LANES_BELOW 0u
#define SHUFFLE_XOR(value, mask) (value)
static inline void __syncwarp() {}
#endif

// Called from as many threads as a block shall have, each with its numbers, before they call a kernel.
extern "C" void be_thread(unsigned int thread, unsigned int threads, unsigned int block, unsigned int blocks) {
    threadIdx.x = thread;
    blockDim.x = threads;
    blockIdx.x = block;
    gridDim.x = blocks;
}
extern "C" void expect_threads(unsigned int threads) {
    pthread_barrier_init(&meeting, 0, threads);
#ifdef HOST_WARP
    for (unsigned int k = 0; k < threads / 32; k++) pthread_barrier_init(&warp_meeting[k], 0, 32);
#endif
}
