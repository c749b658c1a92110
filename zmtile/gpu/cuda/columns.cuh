// The sorted samples of one pixel, absent ones +inf at the end. Up to a few dozen they are a thread's own;
// beyond, those of LANES pixels lie side by side in shared or global memory.

// Sums of even or odd rows about a centre, and of the squares.
struct Sums {
    float total, square;

    __device__ __forceinline__ void add(float d) {
        total = total + d;
        square = __fmaf_rn(d, d, square);
    }
};

// Own samples. Searches of sigma index them by constants only, so they stay in registers.
template <int SIZE>
struct Own {
    float x[SIZE];

    __device__ __forceinline__ float at(int k) const {
        if (!ITERATIVE) return x[k];
        float found = x[0];
#pragma unroll
        for (int i = 1; i < SIZE; i++) found = i == k ? x[i] : found;
        return found;
    }
    // Let the rows outside [a, b) add nothing to sums about the centre.
    __device__ __forceinline__ void cover(int a, int b, float centre) {
#pragma unroll
        for (int i = 0; i < SIZE; i++) x[i] = i < a || i >= b ? centre : x[i];
    }
    __device__ __forceinline__ void sum(
        int, int, float centre, float low, float high, float* total, float* square) const
    {
        Sums sums[2] = {};
#pragma unroll
        for (int i = 0; i < SIZE; i++) sums[i & 1].add(fminf(fmaxf(x[i] - centre, low), high));
        *total = sums[0].total + sums[1].total;
        *square = sums[0].square + sums[1].square;
    }
    // Move a and b inwards past the rows beyond the bounds.
    __device__ __forceinline__ void trim(float lower, float upper, int* a, int* b) const {
        int low = 0, high = 0;
#pragma unroll
        for (int i = 0; i < SIZE; i++) {
            const bool inside = i >= *a && i < *b;
            low += inside && x[i] < lower;
            high += inside && x[i] > upper;
        }
        *a += low;
        *b -= high;
    }
};

// Samples of LANES pixels side by side; x is this pixel's lane.
struct Shared {
    const float* x;

    __device__ __forceinline__ float at(int k) const { return x[(Index)k * LANES]; }
    __device__ __forceinline__ void cover(int, int, float) {}
    __device__ __forceinline__ void sum(
        int a, int b, float centre, float low, float high, float* total, float* square) const
    {
        Sums even = {}, odd = {};
#pragma unroll 4
        for (int i = a & ~1; i < b; i += 2) {
            even.add(i < a ? 0.0f : fminf(fmaxf(at(i) - centre, low), high));
            odd.add(i + 1 < b ? fminf(fmaxf(at(i + 1) - centre, low), high) : 0.0f);
        }
        *total = even.total + odd.total;
        *square = even.square + odd.square;
    }
    __device__ __forceinline__ void trim(float lower, float upper, int* a, int* b) const {
        while (*a < *b && at(*a) < lower) ++*a;
        while (*b > *a && at(*b - 1) > upper) --*b;
    }
};

// The median of rows first ... last - 1, of which there is at least one.
template <class Column>
__device__ __forceinline__ float median(const Column& column, int first, int last)
{
    const float below = column.at((first + last - 1) >> 1), value = column.at((first + last) >> 1);
    return below + 0.5f * (value - below);
}
