// What CUDA gives the kernels, for a C++ compiler: they become functions of the host, run thread by thread.
#include <math.h>
#include <pthread.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)

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

// Every thread is a warp of its own.
#define WARP_COUNT(seen) ((seen) ? 1 : 0)
#define WARP_LEADER true
template <class Number> Number atomicAdd(Number* at, Number value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

static float block_cells[1 << 18];
#define DYNAMIC_SHARED(name) float* name = block_cells

static pthread_barrier_t meeting;
static inline void __syncthreads() {
    if (blockDim.x > 1) pthread_barrier_wait(&meeting);
}

// Called from as many threads as a block shall have, each with its numbers, before they call a kernel.
extern "C" void be_thread(unsigned int thread, unsigned int threads, unsigned int block, unsigned int blocks) {
    threadIdx.x = thread;
    blockDim.x = threads;
    blockIdx.x = block;
    gridDim.x = blocks;
}
extern "C" void expect_threads(unsigned int threads) { pthread_barrier_init(&meeting, 0, threads); }
