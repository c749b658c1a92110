// What all kernels share.
//
// The kernels compute what those of zmtile/kernels compute, in the same order and without fused
// multiply-add (the program is compiled with -fmad=false), so that both back ends round alike. Every
// kernel walks over its items in strides of the grid: it is right for any number of threads, one included.

typedef long long Index;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ float name[]
#endif
// How many threads of a warp saw something; all of its threads must come by. One of them, the leader, notes it.
#ifndef WARP_COUNT
#define WARP_COUNT(seen) __popc(__ballot_sync(0xffffffffu, (seen)))
#define WARP_LEADER (threadIdx.x % 32 == 0)
#endif

#define FIRST_ITEM ((Index)blockIdx.x * blockDim.x + threadIdx.x)
#define ALL_THREADS ((Index)gridDim.x * blockDim.x)

#define NOT_A_NUMBER __int_as_float(0x7fc00000)
#define INF __int_as_float(0x7f800000)

// A first one that is NaN stays, as in Python.
__device__ __forceinline__ float smaller(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float larger(float a, float b) { return b > a ? b : a; }
__device__ __forceinline__ double within(double x, double low, double high) {
    x = x > low ? x : low;
    return x < high ? x : high;
}
