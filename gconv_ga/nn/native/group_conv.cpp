// Group convolution over C_n in the Fourier basis of the rotations, for float and double.
//
// What is computed is described in _fourier.py: a transform over the orientations, the steerable functions applied to each
// row of it, one matrix product for each output frequency (three where it is complex), and the inverse transform. Everything
// happens tile by tile, for a few panels of positions and a few input fields at a time, so that the products with all
// functions, which would be many times the size of the input, never leave the cache.
//
// The gradient of the input is a convolution of the gradient of the output, by the same numbers in another order; and what it
// multiplies by the numbers gives the gradient of the numbers too, as products with the transform of the input.
//
// Tables are data; only common numbers of rotations are template parameters, for the transforms. There is no global
// state, no thread of its own and no library but libc: the caller shares rows or images out, and says how to start threads.
//
// Positions are the pixels of a tile's output, line by line and image by image, in vectors. A vector has its window's positions
// side by side: either lines are whole vectors, or the window is held in K copies that are shifted by a column each, without borders.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

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
enum { ROWS = 4, VECTORS = 3 };  // for 16 registers
#else
enum { ROWS = 8, VECTORS = 2 };  // for 32 registers
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

namespace {

template <class T> struct Traits;
template <> struct Traits<float> { typedef float Vector __attribute__((vector_size(VECTOR_BYTES))); };
template <> struct Traits<double> { typedef double Vector __attribute__((vector_size(VECTOR_BYTES))); };
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

// Exchanges rows and columns of LANES vectors, in steps: blocks of S rows and columns across the diagonal.
template <class T, int S, int... I> INLINE void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, I...>) {
    Vector<T> one = __builtin_shufflevector(a, b, (I & S ? LANES<T> + I - S : I)...), other = __builtin_shufflevector(a, b, (I & S ? LANES<T> + I : I + S)...);
    a = one;
    b = other;
}
template <class T, int S> INLINE void transpose_from(Vector<T>* v) {
    if constexpr (S < LANES<T>) {
        UNROLL for (int i = 0; i < LANES<T>; i++) if (!(i & S)) exchange<T, S>(v[i], v[i + S], std::make_integer_sequence<int, LANES<T>>());
        transpose_from<T, 2 * S>(v);
    }
}
template <class T> INLINE void transpose(Vector<T>* v) { transpose_from<T, 1>(v); }

// As in _fourier_kernel.py; all tables are owned by the caller. Rows of the integer tables are named beside them.
template <class T> struct Plan {
    int32_t n, sides, functions, kernel_size, quarters, blocks, frequencies, kinds, components, pairs, products, numbers, width, orbits;
    const int32_t* block;      // first row, rows, first component, components; rows and components count the halves of D_n one by one
    const int32_t* frequency;  // rows, first row, first butterfly, butterflies, first single, singles
    const int32_t* butterfly;  // index, other index, component of their sum, component of their difference
    const int32_t* single;     // index, component; an index is (side * rows + row) * functions + function
    const int32_t* pair;       // component, other component, sign of the other, component of their sum
    const int32_t* kind;       // first feature, features, first function, functions, whether each is a feature as it is
    const int32_t* order;      // functions by kind
    const int32_t* orbit;      // pairs of taps that a quarter turn takes into one another
    const int32_t* quad;       // on C4 with free taps: two taps of each orbit, and where its products go; see expand_orbits
    const int32_t* mix_begin;  // numbers from the weights of a pair of fields: sparse, row by row
    const int32_t* mix_index;
    const int32_t* unmix_begin;  // the adjoint
    const int32_t* unmix_index;
    const int32_t* number;     // [2, products, 2]: the two numbers that a factor is the sum of; for the convolution, then for its adjoint
    const T* weight;           // [2, products, 2]: their coefficients
    const T* mix;
    const T* unmix;
    const T* coefficient;      // [functions of the kind, features of the kind], kind by kind
    const T* forward;          // [n, n]
    const T* inverse;          // [n, n]

    // Rows of the output: those of the transform, and without reflections those of the products for real and imaginary part together.
    int extra() const { return sides == 2 ? 0 : (n - 1) / 2; }
    int rows() const { return sides * n + extra(); }
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

// Asks for large pages, as long as nothing was written. The C library takes so much memory from the system every time, and page by page
// that costs more than writing it.
static void use_large_pages(void* from, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 2 << 20, begin = ((uintptr_t)from + page - 1) / page * page, end = ((uintptr_t)from + bytes) / page * page;
    if (bytes >= 32 << 20) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)from, (void)bytes;
#endif
}

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

// Everything here works on SPAN positions at a time, a few panels, to read the tables less often: an array of V is [V, SPAN].
enum { WIDE = VECTOR_BYTES == 32 ? 1 : 2, SPAN_VECTORS = WIDE * VECTORS };
template <class T> constexpr int SPAN = WIDE * PANEL<T>;
constexpr int MOST_TAPS = 49;
#define EACH_VECTOR UNROLL for (int v = 0; v < SPAN<T>; v += LANES<T>)

// Features of a window are sums and differences of opposite taps; where quarter turns are among the rotations, the sums
// are combined once more, so that a function of even frequency needs half of them. Their order:
//   without quarters: sums, the centre | differences;   with quarters: sums of sums, the centre | differences of sums | differences.
template <class T> static void features(const T* const* x, const int64_t* tap, int half, bool quarters, const int32_t* orbit, T* f) {
    T rest[MOST_TAPS / 2 * SPAN<T>], *sum = quarters ? rest : f, *difference = f + (half + 1) * SPAN<T>;
    for (int t = 0; t < half; t++, difference += SPAN<T>) {
        EACH_VECTOR {
            const T* at = x[v / LANES<T>];
            Vector<T> a = load(at + tap[t]), b = load(at + tap[2 * half - t]);
            store(sum + t * SPAN<T> + v, a + b);
            store(difference + v, a - b);
        }
    }
    EACH_VECTOR store(f + (quarters ? half / 2 : half) * SPAN<T> + v, load(x[v / LANES<T>] + tap[half]));
    if (!quarters) return;
    for (int o = 0; o < half / 2; o++) EACH_VECTOR {
        Vector<T> a = load(sum + orbit[2 * o] * SPAN<T> + v), b = load(sum + orbit[2 * o + 1] * SPAN<T> + v);
        store(f + o * SPAN<T> + v, a + b);
        store(f + (half / 2 + 1 + o) * SPAN<T> + v, a - b);
    }
}

// out[to(j)] = sum_i c[j * along + i * across] in[from(i)] for M outputs at a time.
template <class T, int M, class From, class To>
INLINE void combine(const T* c, int along, int across, int count, const T* in, From from, T* out, To to) {
    Vector<T> sum[M][SPAN_VECTORS];
    UNROLL for (int j = 0; j < M; j++) EACH_VECTOR sum[j][v / LANES<T>] = load(in + from(0) * SPAN<T> + v) * c[j * along];
    for (int i = 1; i < count; i++) {
        const T* x = in + from(i) * SPAN<T>;
        Vector<T> b[SPAN_VECTORS];
        EACH_VECTOR b[v / LANES<T>] = load(x + v);
        UNROLL for (int j = 0; j < M; j++) {
            T a = c[j * along + i * across];
            UNROLL for (int w = 0; w < SPAN_VECTORS; w++) sum[j][w] += b[w] * a;
        }
    }
    UNROLL for (int j = 0; j < M; j++) EACH_VECTOR store(out + to(j) * SPAN<T> + v, sum[j][v / LANES<T>]);
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
        if (kind[4]) for (int j = 0; j < functions; j++) memcpy(out + order[j] * SPAN<T>, f + (first + j) * SPAN<T>, sizeof(T) * SPAN<T>);
        else combine_all<T>(c, count, 1, functions, count, f, [=](int i) { return first + i; }, out, [=](int j) { return order[j]; });
        c += functions * count;
    }
}

// ---- Matrix products on panels of positions ------------------------------------------------------------------------------

// out[M, PANEL] (+)= A[M, K] B[K, PANEL], A packed as [K, M].
template <class T, int M> static void product_of_rows(int K, const T* A, const T* B, T* out, bool add) {
    Vector<T> sum[M][VECTORS];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < VECTORS; v++)
        sum[m][v] = add ? load(out + m * PANEL<T> + v * LANES<T>) : Vector<T>{};
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

// to[M rows of Z, V vectors] += sum over positions of Z[row, position] X[position, V vectors]. X is [positions, V * LANES]; Z is [row, PANEL], panel by panel.
template <class T, int M, int V> static void outer_of(int positions, const T* Z, int64_t z_panel, const T* X, T* to, int64_t ld) {
    Vector<T> sum[M][V];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) sum[m][v] = load(to + m * ld + v * LANES<T>);
    for (int first = 0; first < positions; first += PANEL<T>, Z += z_panel) {
        for (int p = 0; p < PANEL<T>; p++, X += V * LANES<T>) {
            Vector<T> x[V];
            UNROLL for (int v = 0; v < V; v++) x[v] = load(X + v * LANES<T>);
            UNROLL for (int m = 0; m < M; m++) {
                T z = Z[m * PANEL<T> + p];
                UNROLL for (int v = 0; v < V; v++) sum[m][v] += x[v] * z;
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) store(to + m * ld + v * LANES<T>, sum[m][v]);
}

template <int M> struct Count { static constexpr int value = M; };

// Calls f with `rows` as a template parameter.
template <class F> INLINE void with_rows(int rows, F f) {
    switch (rows) {
        case 1: f(Count<1>()); break;
        case 2: f(Count<2>()); break;
        case 3: f(Count<3>()); break;
#if VECTOR_BYTES != 32
        case 4: f(Count<4>()); break;
        case 5: f(Count<5>()); break;
        case 6: f(Count<6>()); break;
        case 7: f(Count<7>()); break;
#endif
        default: f(Count<ROWS>());
    }
}

// Calls f(first, rows) for strips of ROWS rows, of which the last may have fewer.
template <class F> INLINE void each_strip(int rows, F f) {
    for (int first = 0; first < rows; first += ROWS) f(first, std::min<int>(ROWS, rows - first));
}

// ---- Tiles -----------------------------------------------------------------------------------------------------------

// Fields, pixels, and the steps from an image, a field and an element to the next; planes have no gaps.
struct Sizes {
    int32_t in_fields, out_fields, height, width, padding;
    int64_t in_image, in_field, in_element, out_image, out_field, out_element;
};

// Weights of a layer. Those of the identity begin at `first`, those of the other elements at `rest`; `width` of them lie beside each other.
template <class T> struct Weights {
    T *first, *rest;
    int64_t element, out_field, in_field;          // steps
    int64_t first_length, rest_length;
};

// Images `image` to `end`, rows `row` to `last` of their outputs.
struct Share {
    int32_t image, end, row, last;
};

// About as many bytes at a time: of the transform of a tile, of the products for a few fields, of the results of a few panels.
constexpr int64_t TRANSFORM_BYTES = 256 << 10, SMALL_BYTES = 24 << 10, SMALL_NUMBERS = 192 << 10, LARGE_NUMBERS = 8 << 20, PACKED_BYTES = 512 << 10, PRODUCT_BYTES = 256 << 10, RESULT_BYTES = 768 << 10, STRIPE_BYTES = 64 << 10;
constexpr int MOST_PANELS = 4, MOST_COLUMNS = 256;

// A part of the outputs: windows of rows and columns in one or more images.
template <class T> struct Tile {
    int image, images, top, left, rows, columns, pitch;
    int vectors, window;  // vectors of positions in each image, and numbers in each row of its transform
    bool shifted;
    int64_t tap[MOST_TAPS];  // where each tap lies, seen from a position

    Tile(int K, int image, int images, int top, int left, int rows, int columns)
        : image(image), images(images), top(top), left(left), rows(rows), columns(columns), vectors((rows * columns + LANES<T> - 1) / LANES<T>),
          shifted(columns % LANES<T> != 0) {
        pitch = shifted ? columns : columns + K - 1;
        int64_t copy = (int64_t)(rows + K - 1) * pitch;
        for (int t = 0; t < K * K; t++) tap[t] = t / K * (int64_t)pitch + t % K * (shifted ? copy : 1);
        // The last vector of an image reads beyond.
        window = (int)(((shifted ? K * copy : copy) + 2 * LANES<T> - 1) / LANES<T> * LANES<T>);
    }

    int all() const { return images * vectors; }
    int64_t line() const { return (int64_t)images * window; }
    // Where vector v begins, in a row of the transforms of all images.
    int64_t offset(int v) const {
        v = std::min(v, all() - 1);
        int f = v % vectors * LANES<T>;
        return (int64_t)(v / vectors) * window + (shifted ? f : f / columns * pitch + f % columns);
    }
};

// What a call works with, one for all of its tiles.
template <class T> struct Workspace {
    Buffer<T> raw, transform, z, maps, given, across, packed, gradient, transposed, weights, numbers;
    bool complete() const {
        return raw.data && transform.data && z.data && maps.data && given.data && across.data && packed.data && gradient.data && transposed.data &&
               weights.data && numbers.data;
    }
};

template <class T> struct Convolution {
    const Plan<T>& plan;
    const Sizes sizes;
    const bool adjoint;  // whether in the weights the inputs are outputs, and the factors are those of the adjoint
    const int n, sides, K, C, O, H, W, padding, out_height, out_width, all_rows, out_lanes;
    int tile_rows, tile_columns, tile_images, fields, group, stripe;  // input fields at a time; panels that are multiplied, and that are written, at a time

    Convolution(const Plan<T>& plan, const Sizes& s, bool adjoint, int images)
        : plan(plan), sizes(s), adjoint(adjoint), n(plan.n), sides(plan.sides), K(plan.kernel_size), C(s.in_fields), O(s.out_fields), H(s.height),
          W(s.width), padding(s.padding), out_height(H + 2 * padding - K + 1), out_width(W + 2 * padding - K + 1), all_rows(plan.rows()),
          out_lanes((O + LANES<T> - 1) / LANES<T> * LANES<T>) {
        const int64_t size = sizeof(T), panel = PANEL<T>;
        int64_t most = std::min<int64_t>(std::max<int64_t>(TRANSFORM_BYTES / (size * C * n * sides), MOST_PANELS * panel), 4096);
        int widest = (int)std::min<int64_t>(most / LANES<T> * LANES<T>, MOST_COLUMNS);
        tile_columns = std::min(out_width, widest);
        tile_rows = (int)std::max<int64_t>(1, std::min<int64_t>(out_height, most / tile_columns));
        int tiles = (out_height + tile_rows - 1) / tile_rows;
        tile_rows = (out_height + tiles - 1) / tiles;
        tile_images = 1;
        if (tile_rows == out_height && tile_columns == out_width) {
            int64_t each = (tile_rows * tile_columns + LANES<T> - 1) / LANES<T> * LANES<T>;
            tile_images = (int)std::max<int64_t>(1, std::min<int64_t>(images, most / each));
        }
        int64_t z = size * plan.components * panel, results = size * all_rows * O * panel;
        int64_t factors = size * plan.products * C * O;
        bool small = factors <= SMALL_NUMBERS;
        group = small ? (plan.orbits ? 1 : WIDE) : (int)std::max<int64_t>(1, std::min<int64_t>(RESULT_BYTES / results, MOST_PANELS));
        if (factors > LARGE_NUMBERS) group = MOST_PANELS;
        stripe = (int)std::max<int64_t>(1, std::min<int64_t>(STRIPE_BYTES / (results * group), 8)) * group;
        fields = (int)std::max<int64_t>(1, std::min<int64_t>((small ? SMALL_BYTES : PRODUCT_BYTES) / (z * group), std::min(C, 16)));
        fields = (int)std::max<int64_t>(1, std::min<int64_t>(fields, PACKED_BYTES / (size * plan.products * O)));
    }

    template <class F> void each_tile(const Share& s, F f) const {
        int bottom = std::min(s.last, out_height);
        for (int image = s.image; image < s.end; image += tile_images)
            for (int top = s.row; top < bottom; top += tile_rows)
                for (int left = 0; left < out_width; left += tile_columns)
                    f(Tile<T>(K, image, std::min(tile_images, s.end - image), top, left, std::min(tile_rows, bottom - top), std::min(tile_columns, out_width - left)));
    }

    // Whether everything is one group of panels, so that what depends on the numbers is needed once.
    bool is_one_group(const Share& s) const {
        int vectors = 0, tiles = 0;
        each_tile(s, [&](const Tile<T>& tile) {
            vectors = tile.all();
            tiles++;
        });
        return tiles == 1 && vectors <= group * VECTORS;
    }

    Workspace<T> workspace(const Share& s, bool products, bool gradient) const {
        int64_t window = 0;
        each_tile(s, [&](const Tile<T>& tile) { window = std::max(window, tile.line()); });
        const size_t rows = (size_t)sides * n, positions = (size_t)stripe * PANEL<T>, results = (size_t)all_rows * O * positions;
        const size_t numbers = (size_t)plan.products * (is_one_group(s) ? fields : C);
        return {Buffer<T>((size_t)n * std::max<size_t>(window, positions)), Buffer<T>(rows * C * window), Buffer<T>((size_t)plan.components * fields * (group + WIDE - 1) * PANEL<T>),
                Buffer<T>(products ? results : 0), Buffer<T>(gradient ? results + LANES<T> * PANEL<T> : 0), Buffer<T>(gradient ? (size_t)all_rows * out_lanes * positions : 0),
                Buffer<T>(products ? numbers * O : 0), Buffer<T>(gradient ? numbers * out_lanes : 0), Buffer<T>(gradient ? (size_t)n * n : 0),
                Buffer<T>((size_t)sides * n * (plan.width * fields + LANES<T>) * LINE), Buffer<T>((size_t)plan.numbers * LINE)};
    }

    // ---- What goes in

    void copy_line(const T* from, int first, int width, T* to) const {
        int begin = std::min(width, std::max(0, -first)), end = std::max(begin, std::min(width, W - first));
        if (!from) begin = end = width;
        memset(to, 0, sizeof(T) * begin);
        memcpy(to + begin, from + first + begin, sizeof(T) * (end - begin));
        memset(to + end, 0, sizeof(T) * (width - end));
    }

    // The window of a side of a field with all its orientations, [n, window], zero outside of the image.
    void read_window(const Tile<T>& tile, const T* x, T* to) const {
        const int lines = tile.rows + K - 1, copies = tile.shifted ? K : 1;
        for (int h = 0; h < n; h++) for (int copy = 0; copy < copies; copy++) for (int r = 0; r < lines; r++) {
            int y = tile.top + r - padding;
            const T* from = y < 0 || y >= H ? nullptr : x + h * sizes.in_element + (int64_t)y * W;
            copy_line(from, tile.left - padding + copy, tile.pitch, to + (int64_t)h * tile.window + ((int64_t)copy * lines + r) * tile.pitch);
        }
    }

    // The transforms of all fields, [C, sides * n, images, window].
    void transform_all(const Tile<T>& tile, const T* x, T* raw, T* transform) const {
        const int64_t line = tile.line();
        for (int c = 0; c < C; c++, transform += sides * n * line) {
            for (int i = 0; i < tile.images; i++) for (int s = 0; s < sides; s++) {
                read_window(tile, x + (tile.image + i) * sizes.in_image + c * sizes.in_field + s * n * sizes.in_element, raw);
                analyse<T>(plan.forward, tile.window, n, in_lines(raw, tile.window), Rows<T>{transform + s * n * line + (int64_t)i * tile.window, line, PANEL<T>});
            }
            if (sides == 2) for (int r = 0; r < n; r++) add_sides<T>(transform + r * line, transform + (n + r) * line, (int)line, changes_sign(r));
        }
    }

    // Row r of a frequency, side by side, in the transform.
    int64_t row_of(const int32_t* frequency, int r) const { return (int64_t)(r / frequency[0]) * n + frequency[1] + r % frequency[0]; }

    // The components of one field at the positions of some panels: component q goes to z[panel * z_panel + q * apart].
    void expand(const Tile<T>& tile, const T* transform, int first, int panels, T* z, int64_t z_panel, int64_t apart) const {
        const int64_t line = tile.line();
        T f[MOST_TAPS * SPAN<T>], value[4 * MOST_TAPS * SPAN<T>];
        for (int panel = 0; panel < panels; panel += WIDE, z += WIDE * z_panel) {
            // There is room in z for one panel more.
            auto at = [&](int component, int v) { return z + v / PANEL<T> * z_panel + component * apart + v % PANEL<T>; };
            int64_t offset[SPAN_VECTORS];
            for (int w = 0; w < SPAN_VECTORS; w++) offset[w] = tile.offset(first + panel * VECTORS + w);
            for (int a = 0; a < plan.frequencies; a++) {
                const int32_t* frequency = plan.frequency + 6 * a;
                for (int r = 0; r < sides * frequency[0]; r++) {
                    const T* x[SPAN_VECTORS];
                    for (int w = 0; w < SPAN_VECTORS; w++) x[w] = transform + row_of(frequency, r) * line + offset[w];
                    features<T>(x, tile.tap, K * K / 2, plan.quarters, plan.orbit, f);
                    apply_functions<T>(plan, f, value + r * plan.functions * SPAN<T>);
                }
                const int32_t* b = plan.butterfly + 4 * frequency[2];
                for (int i = 0; i < frequency[3]; i++, b += 4) EACH_VECTOR {
                    Vector<T> one = load(value + b[0] * SPAN<T> + v), other = load(value + b[1] * SPAN<T> + v);
                    store(at(b[2], v), one + other);
                    store(at(b[3], v), one - other);
                }
                const int32_t* s = plan.single + 2 * frequency[4];
                for (int i = 0; i < frequency[5]; i++, s += 2) EACH_VECTOR store(at(s[1], v), load(value + s[0] * SPAN<T> + v));
            }
            const int32_t* p = plan.pair;
            for (int i = 0; i < plan.pairs; i++, p += 4) EACH_VECTOR {
                Vector<T> one = load(at(p[0], v)), other = load(at(p[1], v));
                store(at(p[3], v), p[2] > 0 ? one + other : one - other);
            }
        }
    }

    // The same on C4 with free taps, orbit by orbit of four taps: on each row of the transform the sum E of the four, the difference D of
    // the sums of opposite ones, and the differences c and s of opposite ones. `to` says where in z everything goes:
    //   E, D, c, s of row 0; E, D of rows 1 and 2; E, D, c, s of row 3; c1 + s2, c1 - s2, c2 + s1, c2 - s1;
    //   the sums of E1, E2, of D1, D2, of c0, s0 and of c3, s3, of which the second are taken with the signs in `quad`.
    static constexpr int QUAD = 2 + 16 + 4 + 4;
    void expand_orbits(const Tile<T>& tile, const T* transform, int first, int panels, T* z, int64_t z_panel, const int64_t* to) const {
        const int64_t line = tile.line();
        for (int panel = 0; panel < panels; panel++, z += z_panel) for (int w = 0; w < VECTORS; w++) {
            const T* x = transform + tile.offset(first + panel * VECTORS + w);
            T* at = z + w * LANES<T>;
            const int64_t* t = to;
            const int32_t* quad = plan.quad;
            auto put = [&](Vector<T> v) { store(at + *t++, v); };
            auto put_sum = [&](Vector<T> a, Vector<T> b, int sign) { put(sign > 0 ? a + b : a - b); };
            for (int o = 0; o < plan.orbits; o++, quad += QUAD) {
                Vector<T> E[4], D[4], c[4], s[4];
                UNROLL for (int r = 0; r < 4; r++) {
                    const T* row = x + r * line;
                    Vector<T> a = load(row + tile.tap[quad[0]]), b = load(row + tile.tap[K * K - 1 - quad[0]]);
                    Vector<T> d = load(row + tile.tap[quad[1]]), e = load(row + tile.tap[K * K - 1 - quad[1]]);
                    Vector<T> one = a + b, other = d + e;
                    E[r] = one + other, D[r] = one - other, c[r] = a - b, s[r] = d - e;
                }
                put(E[0]), put(D[0]), put(c[0]), put(s[0]);
                put(E[1]), put(D[1]), put(E[2]), put(D[2]);
                put(E[3]), put(D[3]), put(c[3]), put(s[3]);
                put(c[1] + s[2]), put(c[1] - s[2]), put(c[2] + s[1]), put(c[2] - s[1]);
                put_sum(E[1], E[2], quad[22]), put_sum(D[1], D[2], quad[23]), put_sum(c[0], s[0], quad[24]), put_sum(c[3], s[3], quad[25]);
            }
            // The centre: four rows, and the sum of two.
            Vector<T> m[4];
            UNROLL for (int r = 0; r < 4; r++) put(m[r] = load(x + r * line + tile.tap[K * K / 2]));
            put_sum(m[1], m[2], quad[5]);
        }
    }

    // ---- Numbers

    int elements() const { return sides * n; }
    T* pair_of(const Weights<T>& w, int element, int out, int in) const {
        return (element ? w.rest + (element - 1) * w.element : w.first) + (adjoint ? in : out) * w.out_field + (adjoint ? out : in) * w.in_field;
    }

    // Weights and numbers are handled for ACROSS vectors of output fields at a time, as far as there are: [element * width or number, ACROSS * LANES].
    static constexpr int ACROSS = 4, LINE = ACROSS * LANES<T>;

    // The weights of fields first .. first + count and the output fields from `out` on, field by field.
    void load_weights(const Weights<T>& w, int first, int count, int out, T* to) const {
        const int vectors = std::min(ACROSS, (O - out + LANES<T> - 1) / LANES<T>), numbers = elements() * plan.width;
        // Elements of a pair of fields, or fields of an element, may lie beside each other, and are loaded in one go.
        const bool together = w.in_field == numbers && w.element == plan.width && w.rest == w.first + plan.width;
        if (adjoint || !(together || w.in_field == plan.width)) {
            for (int c = 0; c < count; c++, to += numbers * LINE) for (int v = 0; v < vectors; v++) load_pairs(w, first + c, out + v * LANES<T>, to + v * LANES<T>);
            return;
        }
        for (int v = 0; v < vectors; v++) {
            const int o = out + v * LANES<T>;
            if (together) load_run(pair_of(w, 0, o, first), w.out_field, o, count * numbers, numbers, to + v * LANES<T>);
            else for (int g = 0; g < elements(); g++) load_run(pair_of(w, g, o, first), w.out_field, o, count * plan.width, plan.width, to + (g * plan.width) * LINE + v * LANES<T>);
        }
    }

    // `length` numbers beside each other, for LANES output fields; `own` of them are of a field, which has elements * width lines in `to`.
    void load_run(const T* from, int64_t step, int out, int length, int own, T* to) const {
        const int rows = std::min(LANES<T>, O - out);
        const int64_t skip = (int64_t)(elements() * plan.width - own) * LINE;
        const bool more = out + 2 * LANES<T> <= O;
        if (length < LANES<T>) {
            for (int j = 0; j < length; j++) for (int i = 0; i < rows; i++) to[j * LINE + j / own * skip + i] = from[i * step + j];
            return;
        }
        for (int j = 0; j < length; j += LANES<T>) {
            j = std::min(j, length - LANES<T>);  // the last ones may be loaded twice
            Vector<T> v[LANES<T>];
            UNROLL for (int i = 0; i < LANES<T>; i++) v[i] = load(from + std::min(i, rows - 1) * step + j);
            if (more) UNROLL for (int i = 0; i < LANES<T>; i++) __builtin_prefetch(from + (i + LANES<T>) * step + j);
            transpose<T>(v);
            T* line = to + j * LINE + j / own * skip;
            int left = own - j % own;
            UNROLL for (int i = 0; i < LANES<T>; i++, line += LINE) {
                if (left-- == 0) {
                    line += skip;
                    left = own - 1;
                }
                store(line, v[i]);
            }
        }
    }

    // One input field and LANES output fields.
    void load_pairs(const Weights<T>& w, int in, int out, T* to) const {
        const int own = std::min(LANES<T>, O - out), width = plan.width;
        const int64_t step = adjoint ? w.in_field : w.out_field;
        for (int g = 0; g < elements(); g++, to += width * LINE) {
            const T *from = pair_of(w, g, out, in), *end = g ? w.rest + w.rest_length : w.first + w.first_length;
            if (from + (own - 1) * step + (width + LANES<T> - 1) / LANES<T> * LANES<T> > end) {
                for (int i = 0; i < own; i++) for (int j = 0; j < width; j++) to[j * LINE + i] = from[i * step + j];
                continue;
            }
            for (int j = 0; j < width; j += LANES<T>) {
                Vector<T> v[LANES<T>];
                UNROLL for (int i = 0; i < LANES<T>; i++) v[i] = load(from + std::min(i, own - 1) * step + j);
                transpose<T>(v);
                // What lies beyond the width is overwritten by the next element, or lies in the room after the last.
                UNROLL for (int i = 0; i < LANES<T>; i++) store(to + (j + i) * LINE, v[i]);
            }
        }
    }

    void store_weights(const Weights<T>& w, int in, int out, const T* from) const {
        const int own = std::min(LANES<T>, O - out), width = plan.width;
        const int64_t step = adjoint ? w.in_field : w.out_field;
        for (int g = 0; g < elements(); g++, from += width * LINE) {
            T* to = pair_of(w, g, out, in);
            for (int j = 0; j < width; j += LANES<T>) {
                Vector<T> v[LANES<T>];
                UNROLL for (int i = 0; i < LANES<T>; i++) v[i] = load(from + (j + i) * LINE);
                transpose<T>(v);
                const int count = std::min(LANES<T>, width - j);
                for (int i = 0; i < own; i++) {
                    if (width == 9 && LANES<T> > 8) memcpy(to + i * step + j, &v[i], 9 * sizeof(T));
                    else memcpy(to + i * step + j, &v[i], count * sizeof(T));
                }
            }
        }
    }

    static void apply_sparse(int rows, const int32_t* begin, const int32_t* index, const T* value, const T* in, T* out) {
        for (int r = 0; r < rows; r++, out += LINE) {
            Vector<T> sum[ACROSS] = {};
            for (int i = begin[r]; i < begin[r + 1]; i++) {
                const T *from = in + (int64_t)index[i] * LINE;
                const T a = value[i];
                UNROLL for (int v = 0; v < ACROSS; v++) sum[v] += load(from + v * LANES<T>) * a;
            }
            UNROLL for (int v = 0; v < ACROSS; v++) store(out + v * LANES<T>, sum[v]);
        }
    }

    // The factors of fields first .. first + count, block by block in strips of rows (row, output): [component, field, row].
    void pack(const Weights<T>& w, int first, int count, Workspace<T>& space, T* to) const {
        constexpr int PIECE = std::min<int>(ROWS, LANES<T>);
        if (O % PIECE == 0) pack_pieces<PIECE>(w, first, count, space, to);
        else pack_pieces<1>(w, first, count, space, to);
    }

    // Outputs go to their strips in pieces of PIECE, none of which lies in two.
    template <int PIECE> void pack_pieces(const Weights<T>& w, int first, int count, Workspace<T>& space, T* to) const {
        T *weights = space.weights.data, *numbers = space.numbers.data;
        for (int o = 0; o < O; o += LINE) for (int c = 0; c < count; c++) {
            const int pieces = std::min(LINE, O - o) / PIECE;
            if (c == 0) load_weights(w, first, count, o, weights);
            apply_sparse(plan.numbers, plan.mix_begin, plan.mix_index, plan.mix, weights + c * elements() * plan.width * LINE, numbers);
            const int32_t* number = plan.number + (adjoint ? 2 * plan.products : 0);
            const T* weight = plan.weight + (adjoint ? 2 * plan.products : 0);
            T* base = to;
            for (int b = 0; b < plan.blocks; b++) {
                const int32_t* block = plan.block + 4 * b;
                const int all = block[1] * O, depth = block[3] * count;
                if constexpr (PIECE == ROWS) {
                    // All strips are full.
                    const int own = std::min(LINE, O - o);
                    for (int row = 0; row < block[1]; row++) {
                        T* at = base + (int64_t)(row * O + o) * depth + c * ROWS;
                        for (int q = 0; q < block[3]; q++, number += 2, weight += 2, at += count * ROWS) {
                            const T *one = numbers + (int64_t)number[0] * LINE, *other = numbers + (int64_t)number[1] * LINE;
                            UNROLL for (int v = 0; v < LINE; v += LANES<T>) {
                                const Vector<T> value = load(one + v) * weight[0] + load(other + v) * weight[1];
                                UNROLL for (int i = 0; i < LANES<T>; i += ROWS)
                                    if (v + i < own) memcpy(at + (int64_t)(v + i) * depth, reinterpret_cast<const T*>(&value) + i, ROWS * sizeof(T));
                            }
                        }
                    }
                    base += (int64_t)all * depth;
                    continue;
                }
                for (int row = 0; row < block[1]; row++) {
                    T* at[LINE / PIECE];
                    int64_t step[LINE / PIECE];
                    for (int j = 0; j < pieces; j++) {
                        const int i = row * O + o + j * PIECE, strip = i / ROWS * ROWS, rows = std::min<int>(ROWS, all - strip);
                        at[j] = base + (int64_t)strip * depth + c * rows + (i - strip);
                        step[j] = (int64_t)count * rows;
                    }
                    for (int q = 0; q < block[3]; q++, number += 2, weight += 2) {
                        const T *one = numbers + (int64_t)number[0] * LINE, *other = numbers + (int64_t)number[1] * LINE;
                        T value[LINE];
                        UNROLL for (int v = 0; v < LINE; v += LANES<T>) store(value + v, load(one + v) * weight[0] + load(other + v) * weight[1]);
                        for (int j = 0; j < pieces; j++) {
                            memcpy(at[j], value + j * PIECE, PIECE * sizeof(T));
                            at[j] += step[j];
                        }
                    }
                }
                base += (int64_t)all * depth;
            }
        }
    }

    // The adjoint of the same: the gradient of the weights from that of the factors, [block, row, component, field, out_lanes].
    void unpack(const T* gradient, int first, int count, Workspace<T>& space, const Weights<T>& to) const {
        const int64_t line = (int64_t)count * out_lanes;
        T *weights = space.weights.data, *numbers = space.numbers.data;
        for (int c = 0; c < count; c++) for (int o = 0; o < O; o += LINE) {
            const int vectors = std::min(ACROSS, (O - o + LANES<T> - 1) / LANES<T>);
            const int32_t* number = plan.number + 2 * plan.products;
            const T *weight = plan.weight + 2 * plan.products, *from = gradient + c * out_lanes + o;
            memset(numbers, 0, sizeof(T) * plan.numbers * LINE);
            for (int i = 0; i < plan.products; i++, number += 2, weight += 2, from += line) {
                T *one = numbers + (int64_t)number[0] * LINE, *other = numbers + (int64_t)number[1] * LINE;
                for (int v = 0; v < vectors * LANES<T>; v += LANES<T>) {
                    const Vector<T> g = load(from + v);
                    store(one + v, load(one + v) + g * weight[0]);
                    store(other + v, load(other + v) + g * weight[1]);
                }
            }
            apply_sparse(elements() * plan.width, plan.unmix_begin, plan.unmix_index, plan.unmix, numbers, weights);
            for (int v = 0; v < vectors; v++) store_weights(to, first + c, o + v * LANES<T>, weights + v * LANES<T>);
        }
    }

    // ---- What comes out

    // Calls f(image, pixel, first, count) for pieces of planes of the output that lie at positions first .. first + count of some panels.
    template <class F> void each_piece(const Tile<T>& tile, int vector, int panels, F f) const {
        const int end = std::min(vector + panels * VECTORS, tile.all());
        for (int v = vector; v < end;) {
            int i = v / tile.vectors, own = std::min(end, (i + 1) * tile.vectors) - v, from = v % tile.vectors * LANES<T>;
            int last = std::min(tile.rows * tile.columns, from + own * LANES<T>);
            for (int at = (v - vector) * LANES<T>; from < last;) {
                int count = tile.columns == out_width ? last - from : std::min(last - from, tile.columns - from % tile.columns);
                f(tile.image + i, (int64_t)(tile.top + from / tile.columns) * out_width + tile.left + from % tile.columns, at, count);
                from += count;
                at += count;
            }
            v += own;
        }
    }

    // The rows of the transform from the rows of the products, and the other way round.
    void combine(T* maps, int panels, bool backward) const {
        const int64_t row = (int64_t)O * PANEL<T>;
        for (int panel = 0; panel < panels; panel++, maps += all_rows * row) {
            if (sides == 2) for (int r = 0; r < n; r++) {
                if (backward) add_sides<T>(maps + r * row, maps + (n + r) * row, (int)row, changes_sign(r));
                else split_sides<T>(maps + r * row, maps + (n + r) * row, (int)row, changes_sign(r));
            }
            for (int j = 0; j < plan.extra(); j++) {
                T *real = maps + (2 * j + 1) * row, *imaginary = real + row, *both = maps + (n + j) * row;
                for (int64_t p = 0; p < row; p += LANES<T>) {
                    Vector<T> a = load(real + p), b = load(imaginary + p), k = load(both + p);
                    if (backward) store(both + p, a + b);
                    else {
                        store(real + p, a + k);
                        store(imaginary + p, b + k);
                    }
                }
            }
        }
    }

    void write(const Tile<T>& tile, int vector, int panels, T* maps, const T* bias, T* raw, T* y) const {
        const int64_t row = (int64_t)O * PANEL<T>, count = (int64_t)panels * PANEL<T>;
        combine(maps, panels, false);
        for (int o = 0; o < O; o++) for (int s = 0; s < sides; s++) {
            synthesise<T>(plan.inverse, bias ? bias[o] : T(0), (int)count, n, Rows<T>{maps + s * n * row + o * PANEL<T>, row, all_rows * row}, in_lines(raw, count));
            each_piece(tile, vector, panels, [&](int image, int64_t pixel, int first, int length) {
                T* to = y + image * sizes.out_image + o * sizes.out_field + s * n * sizes.out_element + pixel;
                for (int h = 0; h < n; h++) memcpy(to + h * sizes.out_element, raw + h * count + first, sizeof(T) * length);
            });
        }
    }

    // The adjoint of `write`, with positions before fields: [row, vectors of fields, positions, fields of them].
    void read_given(const Tile<T>& tile, int vector, int panels, const T* y, Workspace<T>& space) const {
        const int64_t row = (int64_t)O * PANEL<T>, count = (int64_t)panels * PANEL<T>;
        T *raw = space.raw.data, *maps = space.given.data;
        memset(raw, 0, sizeof(T) * n * count);
        for (int o = 0; o < O; o++) for (int s = 0; s < sides; s++) {
            each_piece(tile, vector, panels, [&](int image, int64_t pixel, int first, int length) {
                const T* from = y + image * sizes.out_image + o * sizes.out_field + s * n * sizes.out_element + pixel;
                for (int h = 0; h < n; h++) memcpy(raw + h * count + first, from + h * sizes.out_element, sizeof(T) * length);
            });
            analyse<T>(space.transposed.data, (int)count, n, in_lines(raw, count), Rows<T>{maps + s * n * row + o * PANEL<T>, row, all_rows * row});
        }
        combine(maps, panels, true);
        const int64_t positions = (int64_t)stripe * PANEL<T>;
        for (int r = 0; r < all_rows; r++) for (int o = 0; o < O; o += LANES<T>) {
            const int pair = o / LANES<T> / 2 * 2, width = pair + 1 < out_lanes / LANES<T> ? 2 * LANES<T> : LANES<T>;
            T* to = space.across.data + (r * out_lanes + pair * LANES<T>) * positions + (o - pair * LANES<T>);
            for (int panel = 0; panel < panels; panel++) for (int p = 0; p < PANEL<T>; p += LANES<T>) {
                // Of fields beyond the last, what is read does not matter.
                const T* from = maps + (panel * all_rows + r) * row + o * PANEL<T> + p;
                Vector<T> v[LANES<T>];
                UNROLL for (int i = 0; i < LANES<T>; i++) v[i] = load(from + i * PANEL<T>);
                transpose<T>(v);
                UNROLL for (int i = 0; i < LANES<T>; i++, to += width) store(to, v[i]);
            }
        }
    }

    // ---- All of it

    // y from x; with `given`, which is as y is, also the gradient of the weights that it and x give. y or gradient may be null.
    void run(Workspace<T>& space, const Share& share, const T* x, const Weights<T>& weights, const T* bias, T* y, const T* given, const Weights<T>* gradient) const {
        const bool once = is_one_group(share);
        bool packed = false;
        each_tile(share, [&](const Tile<T>& tile) {
            transform_all(tile, x, space.raw.data, space.transform.data);
            for (int vector = 0; vector < tile.all(); vector += stripe * VECTORS) {
                const int whole = std::min(stripe, (tile.all() - vector + VECTORS - 1) / VECTORS);
                if (gradient) read_given(tile, vector, whole, given, space);
                for (int panel = 0; panel < whole; panel += group) {
                    run_group(space, tile, vector, panel, std::min(group, whole - panel), weights, y, gradient, packed, once);
                    packed = true;
                }
                if (y) write(tile, vector, whole, space.maps.data, bias, space.raw.data, y);
            }
        });
        if (gradient && !once) for (int first = 0; first < C; first += fields)
            unpack(space.gradient.data + (int64_t)plan.products * out_lanes * first, first, std::min(fields, C - first), space, *gradient);
    }

    // Panels panel .. panel + panels of those that begin at a vector.
    void run_group(Workspace<T>& space, const Tile<T>& tile, int vector, int panel, int panels, const Weights<T>& weights, const T* y, const Weights<T>* gradient, bool packed, bool once) const {
        int64_t quads[MOST_TAPS / 4 * 20 + 5];
        for (int first = 0; first < C; first += fields) {
            const int count = std::min(fields, C - first);
            const int64_t apart = (int64_t)count * PANEL<T>, z_panel = plan.components * apart;
            for (int o = 0, i = 0; o <= plan.orbits; o++) for (int j = 0; j < (o < plan.orbits ? 20 : 5) && plan.orbits; j++)
                quads[i++] = plan.quad[QUAD * o + (o < plan.orbits ? 2 : 0) + j] * apart;
            for (int c = 0; c < count; c++) {
                const T* transform = space.transform.data + (int64_t)(first + c) * sides * n * tile.line();
                T* z = space.z.data + c * PANEL<T>;
                if (plan.orbits) expand_orbits(tile, transform, vector + panel * VECTORS, panels, z, z_panel, quads);
                else expand(tile, transform, vector + panel * VECTORS, panels, z, z_panel, apart);
            }
            if (y) {
                T* A = space.packed.data + (once ? 0 : (int64_t)plan.products * O * first);
                if (!packed) pack(weights, first, count, space, A);
                multiply(A, count, panels, space.z.data, z_panel, space.maps.data + (int64_t)panel * all_rows * O * PANEL<T>, first > 0);
            }
            if (gradient) {
                T* G = space.gradient.data + (once ? 0 : (int64_t)plan.products * out_lanes * first);
                if (once) memset(G, 0, sizeof(T) * plan.products * count * out_lanes);
                multiply_across(count, panel, panels, space.z.data, z_panel, space.across.data, G);
                if (once) unpack(G, first, count, space, *gradient);
            }
        }
    }

    void multiply(const T* A, int count, int panels, const T* z, int64_t z_panel, T* maps, bool add) const {
        for (int b = 0; b < plan.blocks; b++) {
            const int32_t* block = plan.block + 4 * b;
            const int depth = block[3] * count;
            each_strip(block[1] * O, [&](int strip, int own) {
                for (int panel = 0; panel < panels; panel++) {
                    const T* from = z + panel * z_panel + (int64_t)block[2] * count * PANEL<T>;
                    T* to = maps + ((int64_t)(panel * all_rows + block[0]) * O + strip) * PANEL<T>;
                    with_rows(own, [&](auto rows) { product_of_rows<T, decltype(rows)::value>(depth, A, from, to, add); });
                }
                A += (int64_t)own * depth;
            });
        }
    }

    void multiply_across(int count, int panel, int panels, const T* z, int64_t z_panel, const T* across, T* gradient) const {
        const int64_t positions = (int64_t)stripe * PANEL<T>;
        for (int b = 0; b < plan.blocks; b++) {
            const int32_t* block = plan.block + 4 * b;
            const int depth = block[3] * count;
            for (int row = block[0]; row < block[0] + block[1]; row++, gradient += (int64_t)depth * out_lanes) {
                for (int o = 0; o < out_lanes; o += 2 * LANES<T>) each_strip(depth, [&](int strip, int own) {
                    const int width = o + LANES<T> < out_lanes ? 2 * LANES<T> : LANES<T>;
                    const T* from = z + ((int64_t)block[2] * count + strip) * PANEL<T>;
                    const T* X = across + (row * out_lanes + o) * positions + (int64_t)panel * PANEL<T> * width;
                    T* to = gradient + (int64_t)strip * out_lanes + o;
                    with_rows(own, [&](auto rows) {
                        constexpr int M = decltype(rows)::value;
                        if (width > LANES<T>) outer_of<T, M, 2>(panels * PANEL<T>, from, z_panel, X, to, out_lanes);
                        else outer_of<T, M, 1>(panels * PANEL<T>, from, z_panel, X, to, out_lanes);
                    });
                });
            }
        }
    }
};

template <class T> static bool has_room(const Plan<T>& plan) { return plan.kernel_size * plan.kernel_size <= MOST_TAPS && plan.n <= MOST_ROTATIONS; }

template <class T> static int forward(const Plan<T>& plan, const Sizes& s, const T* x, const Weights<T>& weights, const T* bias, T* y, const Share& share) {
    if (!has_room(plan)) return 1;
    Convolution<T> conv(plan, s, false, share.end - share.image);
    Workspace<T> space = conv.workspace(share, true, false);
    if (!space.complete()) return 2;
    conv.run(space, share, x, weights, bias, y, nullptr, nullptr);
    return 0;
}

template <class T>
static int backward(const Plan<T>& plan, const Sizes& s, const T* dy, const T* x, const Weights<T>& weights, T* dx, const Weights<T>* gradient, const Share& share) {
    if (!has_room(plan)) return 1;
    Convolution<T> conv(plan, s, true, share.end - share.image);
    Workspace<T> space = conv.workspace(share, dx, gradient);
    if (!space.complete()) return 2;
    if (gradient) for (int i = 0; i < plan.n; i++) for (int j = 0; j < plan.n; j++) space.transposed.data[i * plan.n + j] = plan.inverse[j * plan.n + i];
    conv.run(space, share, dy, weights, nullptr, dx, x, gradient);
    return 0;
}

// ---- Shares ------------------------------------------------------------------------------------------------------------

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

// The shares of a call touch no common row of y, or of dx. Returns 0, 1 for more taps or rotations than there is room for, or 2 when
// memory runs out. `backward` takes the sizes of the convolution of dy that gives dx; it sets dx and the gradient of the weights,
// of which there is one for every share; either may be null.
#define EXPORT(TYPE, NAME)                                                                                                \
    extern "C" __attribute__((visibility("default"))) int forward_##NAME(                                                 \
        const Plan<TYPE>* plan, const Sizes* sizes, const TYPE* x, const Weights<TYPE>* weights, const TYPE* bias,        \
        TYPE* y, const Share* shares, int count, int threads, Parallel parallel) {                                        \
        auto work = [=](int, const Share& s) { return forward<TYPE>(*plan, *sizes, x, *weights, bias, y, s); };           \
        return run_all(work, shares, count, threads, parallel);                                                           \
    }                                                                                                                     \
    extern "C" __attribute__((visibility("default"))) int backward_##NAME(                                                \
        const Plan<TYPE>* plan, const Sizes* sizes, const TYPE* dy, const TYPE* x, const Weights<TYPE>* weights,          \
        TYPE* dx, const Weights<TYPE>* gradients, const Share* shares, int count, int threads, Parallel parallel) {       \
        for (int i = 0; gradients && i < count; i++)                                                                      \
            use_large_pages(gradients[i].rest, gradients[i].rest_length * sizeof(TYPE));                                  \
        auto work = [=](int i, const Share& s) {                                                                          \
            return backward<TYPE>(*plan, *sizes, dy, x, *weights, dx, gradients ? gradients + i : nullptr, s);            \
        };                                                                                                                \
        return run_all(work, shares, count, threads, parallel);                                                           \
    }
EXPORT(float, float)
EXPORT(double, double)

// To be raised, here and in _fourier_kernel.py, with every change of the tables or of the functions' arguments.
extern "C" __attribute__((visibility("default"))) int interface_version() { return 3; }
