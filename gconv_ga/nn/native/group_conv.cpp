// Group convolution over C_n in the Fourier basis of the rotations, for float and double.
//
// What is computed is described in _fourier.py: a transform over the orientations, the steerable functions applied to each
// row of it, one matrix product for each output frequency, and the inverse transform. Everything happens tile by tile, so
// that the products with all functions, which would be many times the size of the input, never leave the cache.
//
// Tables are data; only common numbers of rotations are template parameters, for the transforms. There is no global
// state, no thread of its own and no library but libc: the caller shares rows or images out, and says how to start threads.
//
// Positions of a tile are numbered line by line over the window *with* its border of K - 1 columns: the functions at
// position p then read at p + dy * pitch + dx. Results at the K - 1 last positions of a line belong to no pixel and are left out.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifndef VECTOR_BYTES
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif
#if VECTOR_BYTES == 32
enum { ROWS = 4, VECTORS = 3, OUTER_ROWS = 3, OUTER_COLUMNS = 4 };  // for 16 registers
#else
enum { ROWS = 8, VECTORS = 3, OUTER_ROWS = 6, OUTER_COLUMNS = 4 };  // for 32 registers
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

namespace {

template <class T> struct Traits;
template <> struct Traits<float> {
    typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef float Four __attribute__((vector_size(16)));
};
template <> struct Traits<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef double Four __attribute__((vector_size(32)));
};
template <class T> using Vector = typename Traits<T>::Vector;
template <class T> constexpr int LANES = VECTOR_BYTES / sizeof(T);
constexpr int MOST_ROTATIONS = 60;
template <class T> constexpr int PANEL = VECTORS * LANES<T>;  // positions that a matrix product takes at a time

template <class T> INLINE Vector<T> load(const T* from) {
    Vector<T> v;
    memcpy(&v, from, sizeof v);
    return v;
}
template <class T> INLINE void store(T* to, Vector<T> v) { memcpy(to, &v, sizeof v); }

// As in _fourier_kernel.py; all tables are owned by the caller. Rows of the integer tables are named beside them.
template <class T> struct Plan {
    int32_t n, sides, functions, kernel_size, quarters, blocks, frequencies, kinds, components;
    const int32_t* block;      // first row, rows, first component, components; rows and components count the halves of D_n one by one
    const int32_t* frequency;  // rows, first row, first butterfly, butterflies, first single, singles
    const int32_t* butterfly;  // index, other index, component of their sum, component of their difference
    const int32_t* single;     // index, component; an index is (side * rows + row) * functions + function
    const int32_t* kind;       // first feature, features, first function, functions, whether each is a feature as it is
    const int32_t* order;      // functions by kind
    const int32_t* orbit;      // pairs of taps that a quarter turn takes into one another
    const T* coefficient;      // [functions of the kind, features of the kind], kind by kind
    const T* forward;          // [n, n]
    const T* inverse;          // [n, n]
};

template <class T> struct Buffer {
    T* data = nullptr;
    explicit Buffer(size_t count) {
        size_t bytes = (count * sizeof(T) + 4 * VECTOR_BYTES + 63) / 64 * 64;
        data = static_cast<T*>(aligned_alloc(64, bytes));
        if (data) memset(data, 0, bytes);
    }
    ~Buffer() { free(data); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
};

// ---- Transforms over the orientations -----------------------------------------------------------------------------------

// Rows of positions: row r, position p lies at base[(p / PANEL) * panel + r * row + p % PANEL].
template <class T> struct Rows {
    T* base;
    int64_t row, panel;
};
template <class T> Rows<T> in_lines(T* base, int64_t line) { return {base, line, PANEL<T>}; }

// out[row] = sum_h M[row, h] in[h], for matrices whose rows are cosines (row 0 and odd rows) and sines.
template <class T, int N> static void analyse(const T* M, int count, int n_, Rows<T> in, Rows<T> out) {
    const int n = N ? N : n_, half = (n - 1) / 2;
    Vector<T> sum[N ? N + 2 : 64], difference[N ? N + 2 : 64];
    for (int p = 0; p < count; p += LANES<T>) {
        const T* from = in.base + (p / PANEL<T>) * in.panel + p % PANEL<T>;
        T* to = out.base + (p / PANEL<T>) * out.panel + p % PANEL<T>;
        Vector<T> first = load(from), middle = first - first;
        if (n % 2 == 0) middle = load(from + n / 2 * in.row);
        UNROLL for (int h = 1; h <= half; h++) {
            Vector<T> a = load(from + h * in.row), b = load(from + (n - h) * in.row);
            sum[h] = a + b;
            difference[h] = a - b;
        }
        UNROLL for (int row = 0; row < n; row++) {
            const T* m = M + row * n;
            Vector<T> v;
            if (row == 0 || row % 2 == 1) {
                v = first * m[0];
                if (n % 2 == 0) v += middle * m[n / 2];
                UNROLL for (int h = 1; h <= half; h++) v += sum[h] * m[h];
            } else {
                v = difference[1] * m[1];
                UNROLL for (int h = 2; h <= half; h++) v += difference[h] * m[h];
            }
            store(to + row * out.row, v);
        }
    }
}

// out[h] = sum_row M[h, row] in[row] + bias: the other way round, by the same symmetry of the columns.
template <class T, int N> static void synthesise(const T* M, T bias, int count, int n_, Rows<T> in, Rows<T> out) {
    const int n = N ? N : n_;
    Vector<T> v[N ? N + 3 : 64];
    for (int p = 0; p < count; p += LANES<T>) {
        const T* from = in.base + (p / PANEL<T>) * in.panel + p % PANEL<T>;
        T* to = out.base + (p / PANEL<T>) * out.panel + p % PANEL<T>;
        UNROLL for (int row = 0; row < n; row++) v[row] = load(from + row * in.row);
        UNROLL for (int h = 0; h <= n / 2; h++) {
            const T* m = M + h * n;
            Vector<T> even = v[0] * m[0] + bias;
            UNROLL for (int row = 1; row < n; row += 2) even += v[row] * m[row];
            if (h == 0 || 2 * h == n) {
                store(to + h * out.row, even);
                continue;
            }
            Vector<T> odd = v[2] * m[2];
            UNROLL for (int row = 4; row < n; row += 2) odd += v[row] * m[row];
            store(to + h * out.row, even + odd);
            store(to + (n - h) * out.row, even - odd);
        }
    }
}

// On D_n a field has two sides, and a reflection changes the sign of the imaginary rows, those with an even number but 0.
INLINE bool changes_sign(int row) { return row && row % 2 == 0; }

// The sides' sums and differences, (a, b) -> (a + s b, a - s b) with the sign s of their row; in place, `count` positions.
template <class T> INLINE void add_sides(T* one, T* other, int count, bool negative) {
    for (int p = 0; p < count; p += LANES<T>) {
        Vector<T> a = load(one + p), b = load(other + p);
        store(one + p, negative ? a - b : a + b);
        store(other + p, negative ? a + b : a - b);
    }
}

// The adjoint: (a, b) -> (a + b, s (a - b)).
template <class T> INLINE void split_sides(T* one, T* other, int count, bool negative) {
    for (int p = 0; p < count; p += LANES<T>) {
        Vector<T> a = load(one + p), b = load(other + p);
        store(one + p, a + b);
        store(other + p, negative ? b - a : a - b);
    }
}

// The common numbers of rotations are unrolled.
#define FOR_ROTATIONS(F, n, ...)              \
    switch (n) {                              \
        case 4: F<T, 4>(__VA_ARGS__); break;  \
        case 6: F<T, 6>(__VA_ARGS__); break;  \
        case 8: F<T, 8>(__VA_ARGS__); break;  \
        case 12: F<T, 12>(__VA_ARGS__); break; \
        case 16: F<T, 16>(__VA_ARGS__); break; \
        default: F<T, 0>(__VA_ARGS__);        \
    }
template <class T> static void analyse(const T* M, int count, int n, Rows<T> in, Rows<T> out) {
    FOR_ROTATIONS(analyse, n, M, count, n, in, out)
}
template <class T> static void synthesise(const T* M, T bias, int count, int n, Rows<T> in, Rows<T> out) {
    FOR_ROTATIONS(synthesise, n, M, bias, count, n, in, out)
}

// ---- Functions on the taps ---------------------------------------------------------------------------------------------

// Everything below works on a panel of positions at a time: an array of V is [V, PANEL].
constexpr int MOST_TAPS = 49;
#define EACH_VECTOR UNROLL for (int v = 0; v < PANEL<T>; v += LANES<T>)

// Features of a window are sums and differences of opposite taps; where quarter turns are among the rotations, the sums
// are combined once more, so that a function of even frequency needs half of them. Their order:
//   without quarters: sums, the centre | differences;   with quarters: sums of sums, the centre | differences of sums | differences.
template <class T> static void features(const T* x, const int64_t* tap, int half, bool quarters, const int32_t* orbit, T* f) {
    T rest[MOST_TAPS / 2 * PANEL<T>], *sum = quarters ? rest : f, *difference = f + (half + 1) * PANEL<T>;
    for (int t = 0; t < half; t++, difference += PANEL<T>) {
        const T *one = x + tap[t], *other = x + tap[2 * half - t];
        EACH_VECTOR {
            Vector<T> a = load(one + v), b = load(other + v);
            store(sum + t * PANEL<T> + v, a + b);
            store(difference + v, a - b);
        }
    }
    EACH_VECTOR store(f + (quarters ? half / 2 : half) * PANEL<T> + v, load(x + tap[half] + v));
    if (!quarters) return;
    for (int o = 0; o < half / 2; o++) EACH_VECTOR {
        Vector<T> a = load(sum + orbit[2 * o] * PANEL<T> + v), b = load(sum + orbit[2 * o + 1] * PANEL<T> + v);
        store(f + o * PANEL<T> + v, a + b);
        store(f + (half / 2 + 1 + o) * PANEL<T> + v, a - b);
    }
}

// The adjoint: what each tap gets from the features; tap t goes to taps + t * line.
template <class T> static void spread(const T* f, int half, bool quarters, const int32_t* orbit, T* taps, int64_t line) {
    T rest[MOST_TAPS / 2 * PANEL<T>];
    const T *sum = quarters ? rest : f, *difference = f + (half + 1) * PANEL<T>;
    if (quarters) for (int o = 0; o < half / 2; o++) EACH_VECTOR {
        Vector<T> a = load(f + o * PANEL<T> + v), b = load(f + (half / 2 + 1 + o) * PANEL<T> + v);
        store(rest + orbit[2 * o] * PANEL<T> + v, a + b);
        store(rest + orbit[2 * o + 1] * PANEL<T> + v, a - b);
    }
    EACH_VECTOR store(taps + half * line + v, load(f + (quarters ? half / 2 : half) * PANEL<T> + v));
    for (int t = 0; t < half; t++, difference += PANEL<T>) EACH_VECTOR {
        Vector<T> a = load(sum + t * PANEL<T> + v), b = load(difference + v);
        store(taps + t * line + v, a + b);
        store(taps + (2 * half - t) * line + v, a - b);
    }
}

// out[to(j)] = sum_i c[j * along + i * across] in[from(i)] for M outputs at a time.
template <class T, int M, class From, class To>
INLINE void combine(const T* c, int along, int across, int count, const T* in, From from, T* out, To to) {
    Vector<T> sum[M][VECTORS];
    UNROLL for (int j = 0; j < M; j++) EACH_VECTOR sum[j][v / LANES<T>] = load(in + from(0) * PANEL<T> + v) * c[j * along];
    for (int i = 1; i < count; i++) {
        const T* x = in + from(i) * PANEL<T>;
        Vector<T> b[VECTORS];
        EACH_VECTOR b[v / LANES<T>] = load(x + v);
        UNROLL for (int j = 0; j < M; j++) {
            T a = c[j * along + i * across];
            UNROLL for (int w = 0; w < VECTORS; w++) sum[j][w] += b[w] * a;
        }
    }
    UNROLL for (int j = 0; j < M; j++) EACH_VECTOR store(out + to(j) * PANEL<T> + v, sum[j][v / LANES<T>]);
}

template <class T, class From, class To>
INLINE void combine_all(const T* c, int along, int across, int outputs, int count, const T* in, From from, T* out, To to) {
    int j = 0;
    for (; j + 4 <= outputs; j += 4) combine<T, 4>(c + j * along, along, across, count, in, from, out, [&](int i) { return to(j + i); });
    auto last = [&](int i) { return to(j + i); };
    switch (outputs - j) {
        case 3: combine<T, 3>(c + j * along, along, across, count, in, from, out, last); break;
        case 2: combine<T, 2>(c + j * along, along, across, count, in, from, out, last); break;
        case 1: combine<T, 1>(c + j * along, along, across, count, in, from, out, last); break;
    }
}

// The functions from the features.
template <class T> static void apply_functions(const Plan<T>& plan, const T* f, T* out) {
    const T* c = plan.coefficient;
    for (int k = 0; k < plan.kinds; k++) {
        const int32_t *kind = plan.kind + 5 * k, *order = plan.order + kind[2];
        int first = kind[0], count = kind[1], functions = kind[3];
        if (kind[4]) for (int j = 0; j < functions; j++) memcpy(out + order[j] * PANEL<T>, f + (first + j) * PANEL<T>, sizeof(T) * PANEL<T>);
        else combine_all<T>(c, count, 1, functions, count, f, [=](int i) { return first + i; }, out, [=](int j) { return order[j]; });
        c += functions * count;
    }
}

// The adjoint; `f` is zero where no function reads a feature.
template <class T> static void apply_adjoint(const Plan<T>& plan, const T* in, T* f) {
    const T* c = plan.coefficient;
    for (int k = 0; k < plan.kinds; k++) {
        const int32_t *kind = plan.kind + 5 * k, *order = plan.order + kind[2];
        int first = kind[0], count = kind[1], functions = kind[3];
        if (kind[4]) for (int j = 0; j < functions; j++) memcpy(f + (first + j) * PANEL<T>, in + order[j] * PANEL<T>, sizeof(T) * PANEL<T>);
        else combine_all<T>(c, 1, count, count, functions, in, [=](int j) { return order[j]; }, f, [=](int i) { return first + i; });
        c += functions * count;
    }
}

// ---- Matrix products on panels of positions ------------------------------------------------------------------------------

// out[M, PANEL] = A[M, K] B[K, PANEL], A packed by ROWS rows: [M / ROWS, K, ROWS].
template <class T, int M> static void product_of_rows(int K, const T* A, const T* B, T* out) {
    Vector<T> sum[M][VECTORS] = {};
    for (int k = 0; k < K; k++) {
        Vector<T> b[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) b[v] = load(B + k * PANEL<T> + v * LANES<T>);
        UNROLL for (int m = 0; m < M; m++) {
            T a = A[k * M + m];
            UNROLL for (int v = 0; v < VECTORS; v++) sum[m][v] += b[v] * a;
        }
    }
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < VECTORS; v++) store(out + m * PANEL<T> + v * LANES<T>, sum[m][v]);
}

template <class T> static void product(int M, int K, const T* A, const T* B, T* out) {
    for (int m = 0; m < M; m += ROWS, A += ROWS * K, out += ROWS * PANEL<T>) {
        switch (std::min<int>(ROWS, M - m)) {
            case 1: product_of_rows<T, 1>(K, A, B, out); break;
            case 2: product_of_rows<T, 2>(K, A, B, out); break;
            case 3: product_of_rows<T, 3>(K, A, B, out); break;
#if VECTOR_BYTES != 32
            case 4: product_of_rows<T, 4>(K, A, B, out); break;
            case 5: product_of_rows<T, 5>(K, A, B, out); break;
            case 6: product_of_rows<T, 6>(K, A, B, out); break;
            case 7: product_of_rows<T, 7>(K, A, B, out); break;
#endif
            default: product_of_rows<T, ROWS>(K, A, B, out);
        }
    }
}

// Packs A(m, k) for `product`; the rest of the last rows holds as many rows as there are.
template <class T, class At> static void pack(int M, int K, At at, T* to) {
    for (int m = 0; m < M; m += ROWS) {
        int rows = std::min<int>(ROWS, M - m);
        for (int k = 0; k < K; k++) for (int i = 0; i < rows; i++) to[k * rows + i] = at(m + i, k);
        to += rows * K;
    }
}

template <class T> INLINE T sum_of(Vector<T> v) {
    T s = 0;
    UNROLL for (int i = 0; i < LANES<T>; i++) s += v[i];
    return s;
}

// The sums of four vectors' lanes.
template <class T> INLINE void add_sums(const Vector<T>* v, T* to) {
    typedef typename Traits<T>::Four Four;
    if (LANES<T> < 4) {
        UNROLL for (int j = 0; j < 4; j++) to[j] += sum_of<T>(v[j]);
        return;
    }
    Four f[4];
    UNROLL for (int j = 0; j < 4; j++) {
        Four part[LANES<T> / 4 ? LANES<T> / 4 : 1];
        memcpy(part, &v[j], sizeof v[j] < sizeof part ? sizeof v[j] : sizeof part);
        f[j] = part[0];
        UNROLL for (int i = 1; i < LANES<T> / 4; i++) f[j] += part[i];
    }
    Four a = __builtin_shufflevector(f[0], f[1], 0, 2, 4, 6) + __builtin_shufflevector(f[0], f[1], 1, 3, 5, 7);
    Four b = __builtin_shufflevector(f[2], f[3], 0, 2, 4, 6) + __builtin_shufflevector(f[2], f[3], 1, 3, 5, 7);
    Four s = __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7), old;
    memcpy(&old, to, sizeof old);
    old += s;
    memcpy(to, &old, sizeof old);
}

// to[M, K] += sum over panels of X[M, PANEL] Z[K, PANEL]^T, for a few rows and columns at a time.
template <class T, int M, int K>
INLINE void outer_of(int panels, const T* X, int64_t x_panel, const T* Z, int64_t z_panel, T* to, int64_t ld) {
    Vector<T> sum[M][K] = {};
    for (int panel = 0; panel < panels; panel++, X += x_panel, Z += z_panel) {
        for (int v = 0; v < PANEL<T>; v += LANES<T>) {
            Vector<T> x[M];
            UNROLL for (int m = 0; m < M; m++) x[m] = load(X + m * PANEL<T> + v);
            UNROLL for (int k = 0; k < K; k++) {
                Vector<T> z = load(Z + k * PANEL<T> + v);
                UNROLL for (int m = 0; m < M; m++) sum[m][k] += x[m] * z;
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) {
        if (K == 4) add_sums<T>(sum[m], to + m * ld);
        else UNROLL for (int k = 0; k < K; k++) to[m * ld + k] += sum_of<T>(sum[m][k]);
    }
}

template <class T> static void outer(int M, int K, int panels, const T* X, int64_t x_panel, const T* Z, int64_t z_panel, T* to) {
    const int P = PANEL<T>;
    int k = 0;
    for (; k + OUTER_COLUMNS <= K; k += OUTER_COLUMNS) {
        int m = 0;
        for (; m + OUTER_ROWS <= M; m += OUTER_ROWS)
            outer_of<T, OUTER_ROWS, OUTER_COLUMNS>(panels, X + m * P, x_panel, Z + k * P, z_panel, to + (int64_t)m * K + k, K);
        for (; m < M; m++) outer_of<T, 1, OUTER_COLUMNS>(panels, X + m * P, x_panel, Z + k * P, z_panel, to + (int64_t)m * K + k, K);
    }
    for (; k < K; k++) for (int m = 0; m < M; m++) outer_of<T, 1, 1>(panels, X + m * P, x_panel, Z + k * P, z_panel, to + (int64_t)m * K + k, K);
}

// ---- Tiles -----------------------------------------------------------------------------------------------------------

struct Sizes {
    int32_t in_fields, out_fields, height, width, padding;
};

// About this many bytes of products at a time: they stay in the second cache.
constexpr int64_t TILE_BYTES = 384 << 10;

// What a call works with, one for all of its images.
template <class T> struct Workspace {
    Buffer<T> raw, transform, z, maps, packed, taps, gradient, transposed;
    bool complete() const {
        return raw.data && transform.data && z.data && maps.data && packed.data && taps.data && gradient.data && transposed.data;
    }
    const T* transposed_inverse(int) const { return transposed.data; }
    const T* transposed_forward(int n) const { return transposed.data + n * n; }
};

template <class T> struct Convolution {
    const Plan<T>& plan;
    const int n, sides, K, C, O, H, W, padding, out_height, out_width, products;  // products: components times input fields
    int tile_rows, tile_columns, pitch, guard, positions, window;  // positions: a multiple of PANEL; window: the same with what is read beyond
    int64_t tap[MOST_TAPS];  // where each tap lies, seen from a position

    Convolution(const Plan<T>& plan, const Sizes& s)
        : plan(plan), n(plan.n), sides(plan.sides), K(plan.kernel_size), C(s.in_fields), O(s.out_fields), H(s.height), W(s.width), padding(s.padding),
          out_height(H + 2 * padding - K + 1), out_width(W + 2 * padding - K + 1), products(plan.components * C) {
        int64_t each = sizeof(T) * ((int64_t)products + (int64_t)sides * n * O);
        int64_t most = std::max<int64_t>(TILE_BYTES / each, 4 * PANEL<T>);
        tile_columns = (int)std::min<int64_t>(out_width, std::max<int64_t>(most, 2 * PANEL<T>));
        int tiles = (out_width + tile_columns - 1) / tile_columns;
        tile_columns = (out_width + tiles - 1) / tiles;
        pitch = tile_columns + K - 1;
        tile_rows = (int)std::max<int64_t>(1, std::min<int64_t>(out_height, most / pitch));
        positions = (tile_rows * pitch + PANEL<T> - 1) / PANEL<T> * PANEL<T>;
        guard = ((K - 1) * (pitch + 1) + PANEL<T> - 1) / PANEL<T> * PANEL<T> + PANEL<T>;
        window = positions + ((K - 1) * (pitch + 1) + PANEL<T> - 1) / PANEL<T> * PANEL<T>;
        for (int t = 0; t < K * K; t++) tap[t] = (t / K) * (int64_t)pitch + t % K;
    }

    int panels(int rows) const { return (rows * pitch + PANEL<T> - 1) / PANEL<T>; }

    // The window of a side of a field with all its orientations, [n, window], zero outside of the image; `rows` of output.
    void read_window(const T* x, int top, int left, int rows, T* to) const {
        int begin = std::max(0, padding - left), end = std::min(pitch, W + padding - left);
        for (int h = 0; h < n; h++) {
            T* line = to + (int64_t)h * window;
            for (int r = 0; r < rows + K - 1; r++, line += pitch) {
                int y = top + r - padding;
                if (y < 0 || y >= H || begin >= end) {
                    memset(line, 0, sizeof(T) * pitch);
                    continue;
                }
                memset(line, 0, sizeof(T) * begin);
                memcpy(line + begin, x + ((int64_t)h * H + y) * W + left + begin - padding, sizeof(T) * (end - begin));
                memset(line + end, 0, sizeof(T) * (pitch - end));
            }
        }
    }

    // dx += the window, where it lies inside of the image.
    void add_window(const T* from, int top, int left, int rows, T* dx) const {
        int begin = std::max(0, padding - left), end = std::min(pitch, W + padding - left);
        for (int h = 0; h < n; h++) {
            const T* line = from + (int64_t)h * window;
            for (int r = 0; r < rows + K - 1; r++, line += pitch) {
                int y = top + r - padding;
                if (y < 0 || y >= H) continue;
                T* to = dx + ((int64_t)h * H + y) * W + left - padding;
                for (int c = begin; c < end; c++) to[c] += line[c];
            }
        }
    }

    // Row r of a frequency, side by side, in the transform.
    int64_t row_of(const int32_t* frequency, int r) const { return (int64_t)(r / frequency[0]) * n + frequency[1] + r % frequency[0]; }

    // The products of every function with every row of one field's transform, into z[panel][component * C + field][PANEL].
    void expand(const T* transform, int count, T* z) const {
        const int64_t apart = (int64_t)C * PANEL<T>;
        T f[MOST_TAPS * PANEL<T>], value[4 * MOST_TAPS * PANEL<T>];
        for (int p = 0; p < count; p += PANEL<T>, z += (int64_t)products * PANEL<T>) {
            for (int a = 0; a < plan.frequencies; a++) {
                const int32_t* frequency = plan.frequency + 6 * a;
                for (int r = 0; r < sides * frequency[0]; r++) {
                    features<T>(transform + row_of(frequency, r) * window + p, tap, K * K / 2, plan.quarters, plan.orbit, f);
                    apply_functions<T>(plan, f, value + r * plan.functions * PANEL<T>);
                }
                const int32_t* b = plan.butterfly + 4 * frequency[2];
                for (int i = 0; i < frequency[3]; i++, b += 4) EACH_VECTOR {
                    Vector<T> one = load(value + b[0] * PANEL<T> + v), other = load(value + b[1] * PANEL<T> + v);
                    store(z + b[2] * apart + v, one + other);
                    store(z + b[3] * apart + v, one - other);
                }
                const int32_t* s = plan.single + 2 * frequency[4];
                for (int i = 0; i < frequency[5]; i++, s += 2) EACH_VECTOR store(z + s[1] * apart + v, load(value + s[0] * PANEL<T> + v));
            }
        }
    }

    // The adjoint of `expand`, into the transform of the gradient; `taps` is [sides * rows, K * K, guard + positions + guard], zero in the guards.
    void contract(const T* z, int count, int rows, T* taps, T* transform) const {
        const int TAPS = K * K;
        const int64_t line = 2 * guard + positions, apart = (int64_t)C * PANEL<T>;
        T f[MOST_TAPS * PANEL<T>], value[4 * MOST_TAPS * PANEL<T>];
        memset(f, 0, sizeof f);
        for (int a = 0; a < plan.frequencies; a++) {
            const int32_t* frequency = plan.frequency + 6 * a;
            const T* from = z;
            for (int p = 0; p < count; p += PANEL<T>, from += (int64_t)products * PANEL<T>) {
                const int32_t* b = plan.butterfly + 4 * frequency[2];
                for (int i = 0; i < frequency[3]; i++, b += 4) EACH_VECTOR {
                    Vector<T> one = load(from + b[2] * apart + v), other = load(from + b[3] * apart + v);
                    store(value + b[0] * PANEL<T> + v, one + other);
                    store(value + b[1] * PANEL<T> + v, one - other);
                }
                const int32_t* s = plan.single + 2 * frequency[4];
                for (int i = 0; i < frequency[5]; i++, s += 2) EACH_VECTOR store(value + s[0] * PANEL<T> + v, load(from + s[1] * apart + v));
                for (int r = 0; r < sides * frequency[0]; r++) {
                    apply_adjoint<T>(plan, value + r * plan.functions * PANEL<T>, f);
                    spread<T>(f, K * K / 2, plan.quarters, plan.orbit, taps + r * TAPS * line + guard + p, line);
                }
            }
            for (int r = 0; r < sides * frequency[0]; r++) {
                T* to = transform + row_of(frequency, r) * window;
                const T* given = taps + r * TAPS * line + guard;
                // A larger tile may have left its own beyond this one.
                if (count < positions) for (int t = 0; t < TAPS; t++) memset(taps + (r * TAPS + t) * line + guard + count, 0, sizeof(T) * std::min(guard, positions - count));
                for (int p = 0; p < (rows + K - 1) * pitch; p += PANEL<T>) {
                    Vector<T> sum[VECTORS] = {};
                    for (int i = 0; i < TAPS; i++) {
                        const T* from = given + i * line + p - tap[i];
                        EACH_VECTOR sum[v / LANES<T>] += load(from + v);
                    }
                    EACH_VECTOR store(to + p + v, sum[v / LANES<T>]);
                }
            }
        }
    }

    // Transform of the window of every input field, and its products.
    void expand_all(const T* x, int top, int left, int rows, T* raw, T* transform, T* z) const {
        const int length = (rows + K - 1) * pitch;
        for (int c = 0; c < C; c++) {
            for (int s = 0; s < sides; s++) {
                read_window(x + ((int64_t)c * sides + s) * n * H * W, top, left, rows, raw);
                analyse<T>(plan.forward, length, n, in_lines(raw, window), in_lines(transform + s * n * window, window));
            }
            if (sides == 2) for (int r = 0; r < n; r++) add_sides<T>(transform + r * window, transform + (n + r) * window, length, changes_sign(r));
            expand(transform, panels(rows) * PANEL<T>, z + c * PANEL<T>);
        }
    }

    // The sums of what the halves give for every row and field, or their adjoint, on panels of [sides * n, O, PANEL].
    void combine_halves(T* maps, int count, bool adjoint) const {
        if (sides == 1) return;
        const int64_t row = (int64_t)O * PANEL<T>;
        for (int panel = 0; panel < count; panel++, maps += 2 * n * row) for (int r = 0; r < n; r++) {
            if (adjoint) add_sides<T>(maps + r * row, maps + (n + r) * row, O * PANEL<T>, changes_sign(r));
            else split_sides<T>(maps + r * row, maps + (n + r) * row, O * PANEL<T>, changes_sign(r));
        }
    }

    // Output rows row_begin .. row_end of one image.
    void forward(Workspace<T>& space, const T* x, const T* bias, T* y, int row_begin, int row_end) const {
        T *raw = space.raw.data, *z = space.z.data, *out = space.maps.data;
        for (int top = row_begin; top < row_end; top += tile_rows) {
            for (int left = 0; left < out_width; left += tile_columns) {
                int rows = std::min(tile_rows, row_end - top), columns = std::min(tile_columns, out_width - left);
                expand_all(x, top, left, rows, raw, space.transform.data, z);
                for (int panel = 0; panel < panels(rows); panel++) {
                    const T* A = space.packed.data;
                    for (int b = 0; b < plan.blocks; b++) {
                        const int32_t* block = plan.block + 4 * b;
                        int M = block[1] * O, depth = block[3] * C;
                        product<T>(M, depth, A, z + ((int64_t)panel * products + block[2] * C) * PANEL<T>,
                                   out + ((int64_t)panel * sides * n + block[0]) * O * PANEL<T>);
                        A += (int64_t)M * depth;
                    }
                }
                combine_halves(out, panels(rows), false);
                for (int o = 0; o < O; o++) for (int s = 0; s < sides; s++) {
                    Rows<T> found{out + ((int64_t)s * n * O + o) * PANEL<T>, (int64_t)O * PANEL<T>, (int64_t)sides * n * O * PANEL<T>};
                    synthesise<T>(plan.inverse, bias ? bias[o] : T(0), rows * pitch, n, found, in_lines(raw, window));
                    T* to = y + (((int64_t)o * sides + s) * n * out_height + top) * out_width + left;
                    for (int h = 0; h < n; h++, to += (int64_t)out_height * out_width) for (int r = 0; r < rows; r++)
                        memcpy(to + (int64_t)r * out_width, raw + (int64_t)h * window + r * pitch, sizeof(T) * columns);
                }
            }
        }
    }

    // Adds to dx and to the gradient of the numbers in `space` what rows row_begin .. row_end of dy of one image give.
    void backward(Workspace<T>& space, const T* dy, const T* x, T* dx, bool numbers, int row_begin, int row_end) const {
        T *raw = space.raw.data, *transform = space.transform.data, *z = space.z.data, *given = space.maps.data;
        for (int top = row_begin; top < row_end; top += tile_rows) {
            for (int left = 0; left < out_width; left += tile_columns) {
                int rows = std::min(tile_rows, row_end - top), columns = std::min(tile_columns, out_width - left), count = panels(rows);
                for (int o = 0; o < O; o++) for (int s = 0; s < sides; s++) {
                    const T* from = dy + (((int64_t)o * sides + s) * n * out_height + top) * out_width + left;
                    for (int h = 0; h < n; h++, from += (int64_t)out_height * out_width) {
                        T* line = raw + (int64_t)h * window;
                        for (int r = 0; r < rows; r++, line += pitch) {
                            memcpy(line, from + (int64_t)r * out_width, sizeof(T) * columns);
                            memset(line + columns, 0, sizeof(T) * (pitch - columns));
                        }
                        memset(line, 0, sizeof(T) * (count * PANEL<T> - rows * pitch));
                    }
                    Rows<T> to{given + ((int64_t)s * n * O + o) * PANEL<T>, (int64_t)O * PANEL<T>, (int64_t)sides * n * O * PANEL<T>};
                    analyse<T>(space.transposed_inverse(n), count * PANEL<T>, n, in_lines(raw, window), to);
                }
                combine_halves(given, count, true);
                if (numbers) {
                    expand_all(x, top, left, rows, raw, transform, z);
                    T* to = space.gradient.data;
                    for (int b = 0; b < plan.blocks; b++) {
                        const int32_t* block = plan.block + 4 * b;
                        int M = block[1] * O, depth = block[3] * C;
                        outer<T>(M, depth, count, given + (int64_t)block[0] * O * PANEL<T>, (int64_t)sides * n * O * PANEL<T>,
                                 z + (int64_t)block[2] * C * PANEL<T>, (int64_t)products * PANEL<T>, to);
                        to += (int64_t)M * depth;
                    }
                }
                if (dx) {
                    for (int panel = 0; panel < count; panel++) {
                        const T* A = space.packed.data;
                        for (int b = 0; b < plan.blocks; b++) {
                            const int32_t* block = plan.block + 4 * b;
                            int M = block[1] * O, depth = block[3] * C;
                            product<T>(depth, M, A, given + ((int64_t)panel * sides * n + block[0]) * O * PANEL<T>,
                                       z + ((int64_t)panel * products + block[2] * C) * PANEL<T>);
                            A += (int64_t)M * depth;
                        }
                    }
                    const int length = (rows + K - 1) * pitch;
                    for (int c = 0; c < C; c++) {
                        contract(z + c * PANEL<T>, count * PANEL<T>, rows, space.taps.data, transform);
                        if (sides == 2) for (int r = 0; r < n; r++) split_sides<T>(transform + r * window, transform + (n + r) * window, length, changes_sign(r));
                        for (int s = 0; s < sides; s++) {
                            synthesise<T>(space.transposed_forward(n), T(0), length, n, in_lines(transform + s * n * window, window), in_lines(raw, window));
                            add_window(raw, top, left, rows, dx + ((int64_t)c * sides + s) * n * H * W);
                        }
                    }
                }
            }
        }
    }};

// Element (row r, output o, component q, field c) of a block is number (r * components + q, o, c).
template <class T> static void pack_blocks(const Plan<T>& plan, int C, int O, const T* numbers, bool transposed, T* to) {
    for (int b = 0; b < plan.blocks; b++) {
        const int32_t* block = plan.block + 4 * b;
        int rows = block[1], components = block[3], M = rows * O, depth = components * C;
        auto at = [&](int m, int k) { return numbers[(((int64_t)(m / O) * components + k / C) * O + m % O) * C + k % C]; };
        if (transposed) pack<T>(depth, M, [&](int k, int m) { return at(m, k); }, to);
        else pack<T>(M, depth, at, to);
        numbers += (int64_t)M * depth;
        to += (int64_t)M * depth;
    }
}

template <class T> static size_t count_numbers(const Plan<T>& plan, const Sizes& s) {
    size_t count = 0;
    for (int b = 0; b < plan.blocks; b++) count += (size_t)plan.block[4 * b + 1] * plan.block[4 * b + 3] * s.in_fields * s.out_fields;
    return count;
}

template <class T> static Workspace<T> make_workspace(const Convolution<T>& conv, size_t packed, size_t taps, size_t gradient, size_t transposed) {
    const size_t rows = (size_t)conv.sides * conv.n;
    return {Buffer<T>((size_t)conv.n * conv.window), Buffer<T>(rows * conv.window), Buffer<T>((size_t)conv.products * conv.positions),
            Buffer<T>(rows * conv.O * conv.positions), Buffer<T>(packed), Buffer<T>(taps), Buffer<T>(gradient), Buffer<T>(transposed)};
}

template <class T>
static int forward(const Plan<T>& plan, const Sizes& s, const T* x, const T* numbers, const T* bias, T* y, int image, int end, int row, int last) {
    if (plan.kernel_size * plan.kernel_size > MOST_TAPS || plan.n > MOST_ROTATIONS) return 1;
    Convolution<T> conv(plan, s);
    Workspace<T> space = make_workspace<T>(conv, count_numbers(plan, s), 0, 0, 0);
    if (!space.complete()) return 2;
    pack_blocks<T>(plan, s.in_fields, s.out_fields, numbers, false, space.packed.data);
    const int64_t in_image = (int64_t)conv.C * conv.sides * conv.n * conv.H * conv.W;
    const int64_t out_image = (int64_t)conv.O * conv.sides * conv.n * conv.out_height * conv.out_width;
    for (; image < end; image++) conv.forward(space, x + image * in_image, bias, y + image * out_image, row, std::min(last, conv.out_height));
    return 0;
}

template <class T>
static int backward(const Plan<T>& plan, const Sizes& s, const T* dy, const T* x, const T* numbers, T* dx, T* d_numbers, int image, int end, int row, int last) {
    if (plan.kernel_size * plan.kernel_size > MOST_TAPS || plan.n > MOST_ROTATIONS) return 1;
    Convolution<T> conv(plan, s);
    const int n = plan.n;
    const size_t size = count_numbers(plan, s), taps = (size_t)2 * conv.sides * conv.K * conv.K * (2 * conv.guard + conv.positions);
    Workspace<T> space = make_workspace<T>(conv, dx ? size : 0, dx ? taps : 0, d_numbers ? size : 0, 2 * (size_t)n * n);
    if (!space.complete()) return 2;
    if (dx) pack_blocks<T>(plan, s.in_fields, s.out_fields, numbers, true, space.packed.data);
    for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) {
        space.transposed.data[i * n + j] = plan.inverse[j * n + i];
        space.transposed.data[n * n + i * n + j] = plan.forward[j * n + i];
    }
    const int64_t in_image = (int64_t)conv.C * conv.sides * n * conv.H * conv.W;
    const int64_t out_image = (int64_t)conv.O * conv.sides * n * conv.out_height * conv.out_width;
    for (; image < end; image++)
        conv.backward(space, dy + image * out_image, x + image * in_image, dx ? dx + image * in_image : nullptr, d_numbers, row, std::min(last, conv.out_height));
    if (d_numbers) {
        const T* from = space.gradient.data;
        for (int b = 0; b < plan.blocks; b++) {
            int rows = plan.block[4 * b + 1], components = plan.block[4 * b + 3], C = conv.C, O = conv.O;
            for (int r = 0; r < rows; r++) for (int o = 0; o < O; o++) for (int q = 0; q < components; q++) for (int c = 0; c < C; c++)
                d_numbers[(((int64_t)r * components + q) * O + o) * C + c] += *from++;
            d_numbers += (int64_t)rows * components * O * C;
        }
    }
    return 0;
}

// ---- Shares ------------------------------------------------------------------------------------------------------------

// Images `image` to `end`, rows `row` to `last` of their outputs.
struct Share {
    int32_t image, end, row, last;
};

// Calls a function with an argument in so many threads, of which the caller is one, and waits: GOMP_parallel of OpenMP. Torch's own
// threads are used, because they wait busily for torch's next operation and would hold back any other thread.
typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);

template <class Work> struct Team {
    const Work& work;
    const Share* shares;
    int count, next = 0, failure = 0;

    // Each thread takes the next share until there is none; which thread it is makes no difference to the result.
    static void run(void* self) {
        Team* team = static_cast<Team*>(self);
        for (;;) {
            int i = __atomic_fetch_add(&team->next, 1, __ATOMIC_RELAXED);
            if (i >= team->count) return;
            int code = team->work(i, team->shares[i]);
            if (code) __atomic_store_n(&team->failure, code, __ATOMIC_RELAXED);
        }
    }
};

template <class Work> static int run_all(const Work& work, const Share* shares, int count, int threads, Parallel parallel) {
    Team<Work> team{work, shares, count};
    if (parallel && threads > 1 && count > 1) parallel(Team<Work>::run, &team, std::min(threads, count), 0);
    else Team<Work>::run(&team);
    return team.failure;
}

}  // namespace

// The shares of a call touch no common row of y, and of dx. Returns 0, 1 for more taps or rotations than there is room for, or 2 when
// memory runs out. `backward` adds to dx and to a d_numbers of `size` numbers for every share; either may be null.
#define EXPORT(TYPE, NAME)                                                                                                \
    extern "C" __attribute__((visibility("default"))) int forward_##NAME(                                                 \
        const Plan<TYPE>* plan, const Sizes* sizes, const TYPE* x, const TYPE* numbers, const TYPE* bias, TYPE* y,        \
        const Share* shares, int count, int threads, Parallel parallel) {                                                 \
        auto work = [=](int, const Share& s) {                                                                            \
            return forward<TYPE>(*plan, *sizes, x, numbers, bias, y, s.image, s.end, s.row, s.last);                      \
        };                                                                                                                \
        return run_all(work, shares, count, threads, parallel);                                                           \
    }                                                                                                                     \
    extern "C" __attribute__((visibility("default"))) int backward_##NAME(                                                \
        const Plan<TYPE>* plan, const Sizes* sizes, const TYPE* dy, const TYPE* x, const TYPE* numbers, TYPE* dx,         \
        TYPE* d_numbers, int64_t size, const Share* shares, int count, int threads, Parallel parallel) {                  \
        auto work = [=](int i, const Share& s) {                                                                          \
            TYPE* to = d_numbers ? d_numbers + i * size : nullptr;                                                        \
            return backward<TYPE>(*plan, *sizes, dy, x, numbers, dx, to, s.image, s.end, s.row, s.last);                  \
        };                                                                                                                \
        return run_all(work, shares, count, threads, parallel);                                                           \
    }
EXPORT(float, float)
EXPORT(double, double)

// To be raised, here and in _fourier_kernel.py, with every change of the tables or of the functions' arguments.
extern "C" __attribute__((visibility("default"))) int interface_version() { return 2; }
