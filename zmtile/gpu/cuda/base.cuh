// What all kernels share.
//
// The kernels compute what those of zmtile/kernels compute, in the same order and with a fused multiply-add
// only where those have one (the program is compiled with -fmad=false), so that both back ends round alike. Every
// kernel walks over its items in strides of the grid: it is right for any number of threads, one included.

typedef long long Index;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ float name[]
#endif
// Of the lanes of a warp, all of which must come by: how many saw something, and which; the sum of what they have, below
// 2^31; another lane's value. The host has warps of other sizes.
#ifndef WARP_SIZE
#define WARP_SIZE 32
#define NOT_INLINE __device__ __noinline__
#define WARP_MASK(seen) __ballot_sync(0xffffffffu, (seen))
#define LANES_BELOW ((1u << (threadIdx.x % 32)) - 1)
#define SHUFFLE_XOR(value, mask) __shfl_xor_sync(0xffffffffu, (value), (mask))
#if __CUDA_ARCH__ >= 800
#define WARP_SUM(value) __reduce_add_sync(0xffffffffu, (value))
#define WARP_MIN(value) __reduce_min_sync(0xffffffffu, (value))
#define WARP_MAX(value) __reduce_max_sync(0xffffffffu, (value))
#else
template <class Number> __device__ __forceinline__ Number warp_sum(Number value) {
    for (int apart = 16; apart; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
    return value;
}
__device__ __forceinline__ int warp_max(int value) {
    for (int apart = 16; apart; apart /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, apart));
    return value;
}
#define WARP_SUM(value) warp_sum(value)
#define WARP_MIN(value) (-warp_max(-(value)))
#define WARP_MAX(value) warp_max(value)
#endif
#endif
#define WARP_COUNT(seen) __popc(WARP_MASK(seen))
// Lane of the n-th bit of a mask.
__device__ __forceinline__ int nth_lane(unsigned int mask, int n) {
    for (int k = 0; k < n; k++) mask &= mask - 1;
    return __ffs(mask) - 1;
}
#define NTH_LANE(mask, n) nth_lane(mask, n)

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
