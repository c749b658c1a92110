// Search of sigma by columns in shared memory, a lane for each: zmtile/kernels/winsor.py, pixel by pixel.
//
// A lane that has settled takes the next pixel while the others of its warp go on: half of the pixels need 4 to 14
// turns, but the slowest of 32 needs 23 to 31. Warps know nothing of each other.

// The search in one lane. Four rows of a column lie together, those of the other columns beside them.
struct Search {
    float* column;  // row 0
    int apart;      // floats from four rows to the next four
    Index pixel;
    int count, a, b, turn;  // survivors are rows a ... b - 1
    float centre, per_n, per_dof, high, sigma;  // 1 / n and 1 / (n - 1)
    bool busy, settled;

    __device__ __forceinline__ float* row(int k) const { return column + (k >> 2) * apart + (k & 3); }
    __device__ __forceinline__ float median() const {
        const float below = *row((a + b - 1) >> 1), value = *row((a + b) >> 1);
        return below + 0.5f * (value - below);
    }
    // Begin anew with rows a ... b - 1: the others add nothing to sums about the centre.
    __device__ __forceinline__ void begin(int rows) {
        centre = median();
        per_n = 1.0f / (float)(b - a);
        per_dof = 1.0f / ((float)(b - a) - 1.0f);
        for (int k = 0; k < a; k++) *row(k) = centre;
        for (int k = b; k < rows; k++) *row(k) = centre;
        high = sigma = INF;
        turn = 0;
        settled = false;
    }
    __device__ __forceinline__ float clipped(float x) const { return fminf(fmaxf(x - centre, -high), high); }
    // The next bounds and sigma, from the sums.
    __device__ __forceinline__ void settle(float total, float square) {
        if (settled) return;
        const float spread = (square - total * (total * per_n)) * per_dof;
        const float old = sigma;
        sigma = sqrtf(spread > 0.0f ? spread : 0.0f);
        if (METHOD != WINSOR) {
            settled = true;
            return;
        }
        if (turn > 0) {  // the first turn gives the plain SD, which settles nothing
            sigma = WINSOR_GROW * sigma;
            settled = fabsf(sigma - old) <= WINSOR_SETTLED * old || turn >= WINSOR_ROUNDS;
        }
        turn++;
        const float bound = WINSOR_CLIP * sigma;  // clipped again and again: the bounds only close
        high = bound < high ? bound : high;
    }
    // Leave out what lies beyond the bounds; return whether the pixel is done.
    __device__ __forceinline__ bool trim(float klow, float khigh) {
        const float lower = centre - klow * sigma, upper = centre + khigh * sigma;
        int first = a, last = b;
        while (first < last && *row(first) < lower) first++;
        while (last > first && *row(last - 1) > upper) last--;
        if (first == last) {  // a kappa below 1 can refuse them all; then none goes
            first = a;
            last = b;
        }
        const bool again = last - first < b - a && last - first >= 3;
        a = first;
        b = last;
        return !again;
    }
    __device__ __forceinline__ void put(const Outputs& out) const {
        put_bounds(out, pixel, count, *row(a), *row(b - 1), median());
    }
};

// As an H100 likes it best: lanes that may be done before the others wait for them, and fours of rows unrolled.
constexpr int FEW = OWN_SIZE <= MOST_OWN ? 12 : 4, TURN_FOURS = OWN_SIZE <= MOST_OWN ? 4 : 8;

// Turns of all lanes of a warp until FEW of them have settled, or all.
__device__ __forceinline__ void turns(Search& lane, int fours)
{
    int left;
    const int busy = WARP_COUNT(lane.busy), few = busy > FEW ? busy - FEW : 0;
    do {
        Sums even = {}, odd = {};
        const float* four = lane.column;
#pragma unroll TURN_FOURS
        for (int i = 0; i < fours; i++, four += lane.apart) {
            const float4 x = *(const float4*)four;
            even.add(lane.clipped(x.x));
            odd.add(lane.clipped(x.y));
            even.add(lane.clipped(x.z));
            odd.add(lane.clipped(x.w));
        }
        if (lane.busy) lane.settle(even.total + odd.total, even.square + odd.square);
        left = WARP_COUNT(lane.busy && !lane.settled);
    } while (left > few);
}

#define NO_PIXEL {cells, 4, 0, 0, 0, 0, 0, 0.0f, 0.5f, 1.0f, 0.0f, 0.0f, false, false}
// The pixels of a warp: its share of the whole, in widths of a warp.
#define WARP_SHARE \
    const Index warps = ALL_THREADS / WARP_SIZE, warp = FIRST_ITEM / WARP_SIZE; \
    const Index share = (pixels + warps * WARP_SIZE - 1) / (warps * WARP_SIZE) * WARP_SIZE; \
    Index next = warp * share; \
    const Index end = next + share < pixels ? next + share : pixels;

#if OWN_SIZE && OWN_SIZE <= MOST_OWN && SEARCHING
// Up to OWN_SIZE frames. A thread sorts the samples of its pixel in registers; then they wait in shared memory, in
// one of two places of each lane. So a lane that is done has its next pixel at hand, most often, and most lanes have a
// place free when the warp comes to sort again.
extern "C" __global__ void __launch_bounds__(THREADS) search_own(STACK_ARGUMENTS)
{
    STACK_OUTPUTS
    DYNAMIC_SHARED(cells);
    const int lane = threadIdx.x % WARP_SIZE;
    const int place = OWN_SIZE * WARP_SIZE;
    float* const places = cells + threadIdx.x / WARP_SIZE * (2 * place) + 4 * lane;
    Search mine = NO_PIXEL;
    mine.column = places;
    mine.apart = 4 * WARP_SIZE;
    bool waiting = false;
    Index second = 0;
    int second_count = 0;
    WARP_SHARE
    for (;;) {
        while (next < end && WARP_COUNT(!mine.busy) > 0) {
            const unsigned int free = WARP_MASK(!waiting);
            const Index pixel = next + __popc(free & LANES_BELOW);
            const bool taken = !waiting && pixel < end;
            next += __popc(free);
            float x[OWN_SIZE];
            int count = 0;
#pragma unroll
            for (int i = 0; i < OWN_SIZE; i++)
                x[i] = taken && i < frames ? samples[i * pixels + pixel] : NOT_A_NUMBER;
#pragma unroll
            for (int i = 0; i < OWN_SIZE; i++) {
                count += x[i] == x[i];
                x[i] = x[i] == x[i] ? x[i] : INF;
            }
            NETWORK(x)
            if (taken && count < 3) {
                const float last = count == 2 ? x[1] : x[0];
                if (count) put_bounds(out, pixel, count, x[0], last, x[0] + 0.5f * (last - x[0]));
                else put_bounds(out, pixel, 0, -INF, INF, 0.0f);
            }
            if (taken && count >= 3) {
                float* to = mine.column;
                if (mine.busy) to = to == places ? places + place : places;
#pragma unroll
                for (int i = 0; i < OWN_SIZE; i += 4)
                    *(float4*)(to + i * WARP_SIZE) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
                if (mine.busy) {
                    waiting = true;
                    second = pixel;
                    second_count = count;
                } else {
                    mine.busy = true;
                    mine.pixel = pixel;
                    mine.count = mine.b = count;
                    mine.a = 0;
                    mine.begin(OWN_SIZE);
                }
            }
        }
        if (WARP_COUNT(mine.busy) == 0) break;
        turns(mine, OWN_SIZE / 4);
        if (mine.busy && mine.settled) {
            if (mine.trim(rule->klow, rule->khigh)) {
                mine.put(out);
                mine.busy = waiting;
                mine.pixel = second;
                mine.count = mine.b = second_count;
                mine.a = 0;
                if (waiting) mine.column = mine.column == places ? places + place : places;
                waiting = false;
            }
            if (mine.busy) mine.begin(OWN_SIZE);
        }
    }
}
#elif OWN_SIZE > MOST_OWN
// Up to OWN_SIZE frames, more than a thread can hold. A warp sorts the samples of a pixel in the registers of all its
// lanes, pixel after pixel, as soon as some of its columns are free. columns: of each block, which is one warp.
extern "C" __global__ void __launch_bounds__(32, OWN_SIZE < 1024 ? 16 : 8) search_warp(STACK_ARGUMENTS, int columns)
{
    STACK_OUTPUTS
    DYNAMIC_SHARED(all_cells);
    const int lane = threadIdx.x % WARP_SIZE, rows = (frames + 3) / 4 * 4;
    float* const cells = all_cells + threadIdx.x / WARP_SIZE * columns * rows;
    if (columns > WARP_SIZE) columns = WARP_SIZE;
    const int group = columns < GROUP ? columns : GROUP;
    const int apart = 4 * columns;
    Search mine = NO_PIXEL;
    mine.column = cells + 4 * (lane < columns ? lane : 0);
    mine.apart = apart;
    WARP_SHARE
    for (;;) {
        while (next < end && columns - WARP_COUNT(mine.busy) >= group) {
            const unsigned int free = WARP_MASK(lane < columns && !mine.busy);
            const int rank = __popc(free & LANES_BELOW);
            const bool taken = (free >> lane & 1) && rank < group && next + rank < end;
            // Read a few pixels together, a row of them at a time.
            const int each = lane % group, to = NTH_LANE(free, each);
            __syncwarp();
            if (lane < WARP_SIZE / group * group && next + each < end) {
                const float* from = samples + next + each;
#pragma unroll 8
                for (int i = lane / group; i < frames; i += WARP_SIZE / group)
                    cells[i / 4 * apart + 4 * to + i % 4] = from[i * pixels];
                for (int i = frames + lane / group; i < rows; i += WARP_SIZE / group)
                    cells[i / 4 * apart + 4 * to + i % 4] = NOT_A_NUMBER;
            }
            __syncwarp();
            for (int k = 0; k < group && next + k < end; k++) {
                const int owner = NTH_LANE(free, k);
                float* column = cells + 4 * owner;
                float x[OWN_SIZE / WARP_SIZE];
                int count = 0;
#pragma unroll
                for (int i = 0; i < OWN_SIZE / WARP_SIZE; i += 4) {
                    const int four = i / 4 * WARP_SIZE + lane;
                    const float4 v = 4 * four < rows ? *(const float4*)(column + four * apart)
                                                     : make_float4(INF, INF, INF, INF);
                    x[i] = v.x;
                    x[i + 1] = v.y;
                    x[i + 2] = v.z;
                    x[i + 3] = v.w;
#pragma unroll
                    for (int j = i; j < i + 4; j++) {
                        count += x[j] < INF;
                        x[j] = x[j] == x[j] ? x[j] : INF;
                    }
                }
                count = WARP_SUM(count);
                sort_together<OWN_SIZE / WARP_SIZE>(x, lane);
#pragma unroll
                for (int i = 0; i < OWN_SIZE / WARP_SIZE; i += 4) {
                    const int four = lane * (OWN_SIZE / WARP_SIZE / 4) + i / 4;
                    if (4 * four < rows)
                        *(float4*)(column + four * apart) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
                }
                if (lane == owner) mine.count = count;
            }
            __syncwarp();
            if (taken) {
                mine.pixel = next + rank;
                mine.a = 0;
                mine.b = mine.count;
                mine.busy = mine.count >= 3;
                if (mine.busy) mine.begin(rows);
                else if (mine.count) mine.put(out);
                else put_bounds(out, mine.pixel, 0, -INF, INF, 0.0f);
            }
            next += group;
        }
        if (WARP_COUNT(mine.busy) == 0) break;
        turns(mine, rows / 4);
        if (mine.busy && mine.settled) {
            if (mine.trim(rule->klow, rule->khigh)) {
                mine.put(out);
                mine.busy = false;
            } else mine.begin(rows);
        }
    }
}
#endif
