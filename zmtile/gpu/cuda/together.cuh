// Sort in the registers of all lanes of a warp: bitonic, each merge begun with its second half reversed, so that every
// comparator puts the smaller value first. Lane l holds values l SIZE ... l SIZE + SIZE - 1.

__device__ __forceinline__ void exchange(float& a, float& b)
{
    const float u = a, v = b;
    a = fminf(u, v);
    b = fmaxf(u, v);
}

template <int SIZE, int APART>
__device__ __forceinline__ void halve(float (&x)[SIZE])
{
#pragma unroll
    for (int i = 0; i < SIZE; i++)
        if (!(i & APART)) exchange(x[i], x[i | APART]);
    if constexpr (APART > 1) halve<SIZE, APART / 2>(x);
}

template <int SIZE, int RUN>
__device__ __forceinline__ void sort_runs(float (&x)[SIZE])
{
    if constexpr (RUN > 2) sort_runs<SIZE, RUN / 2>(x);
#pragma unroll
    for (int i = 0; i < SIZE; i++)
        if (!(i & RUN / 2)) exchange(x[i], x[i ^ (RUN - 1)]);
    if constexpr (RUN > 2) halve<SIZE, RUN / 4>(x);
}

template <int SIZE>
__device__ __forceinline__ void sort_together(float (&x)[SIZE], int lane)
{
    sort_runs<SIZE, SIZE>(x);
    for (int run = 1; run < WARP_SIZE; run *= 2) {
        bool upper = lane & run;
#pragma unroll
        for (int i = 0; i < SIZE / 2; i++) {
            const float u = SHUFFLE_XOR(x[SIZE - 1 - i], 2 * run - 1), v = SHUFFLE_XOR(x[i], 2 * run - 1);
            x[i] = upper ? fmaxf(x[i], u) : fminf(x[i], u);
            x[SIZE - 1 - i] = upper ? fmaxf(x[SIZE - 1 - i], v) : fminf(x[SIZE - 1 - i], v);
        }
        for (int apart = run / 2; apart > 0; apart /= 2) {
            upper = lane & apart;
#pragma unroll
            for (int i = 0; i < SIZE; i++) {
                const float u = SHUFFLE_XOR(x[i], apart);
                x[i] = upper ? fmaxf(x[i], u) : fminf(x[i], u);
            }
        }
        halve<SIZE, SIZE / 2>(x);
    }
}
