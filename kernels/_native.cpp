// Depthwise convolutions on a CPU, compiled for it when they are first needed; _native.py holds the other end.
//
// A vector register holds as many neighbouring channels as fit, LANES, so that a convolution needs no shuffling. A task
// is a block of LANES channels of one image: it is copied into a scratch buffer that stays in the L2 cache, whatever
// the layout and type of the tensor, convolved there in fp32, and copied back. Small kernels on contiguous maps are the
// exception: there, vectors hold neighbouring pixels of a row. All passes come down to one sum,
//
//     out[i, j] += sum over a, b of kernel[a, b] * x[i + a - top, j + b - left],
//
// computed some rows and columns at a time, which live in registers. Taps that would meet padding are skipped, not
// multiplied by zero; where vectors hold pixels of a row, that goes for those above and below the map. For the gradient
// of the kernels, the kernels are `out` and the output's gradient is `kernel`. With stride or dilation, pixels of the
// same remainder form lattices that only meet each other.
//
// Sums run in an order that depends on shapes only, never on the number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

// Two rows of MOST_COLUMNS sums, two taps and a pixel have to fit the registers, of which there are 32, or 16 with AVX
// alone. So have MOST_ROWS rows of MOST_RUNS runs of RUN pixels, a tap for each row, and a pixel. With AVX-512 a run is
// half a vector: 56 pixels are seven of them.
#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_COLUMNS = 12, RUN = 8, MOST_ROWS = 5, MOST_RUNS = 7;
#elif defined(__AVX__)
constexpr int LANES = 8, MOST_COLUMNS = 5, RUN = 8, MOST_ROWS = 3, MOST_RUNS = 4;
#elif defined(__aarch64__)
constexpr int LANES = 4, MOST_COLUMNS = 12, RUN = 4, MOST_ROWS = 4, MOST_RUNS = 6;
#else
constexpr int LANES = 4, MOST_COLUMNS = 5, RUN = 4, MOST_ROWS = 3, MOST_RUNS = 4;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef Lanes Unaligned __attribute__((aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef float Run __attribute__((vector_size(4 * RUN)));
typedef Run UnalignedRun __attribute__((aligned(4), may_alias));

enum Type : int64_t { FLOAT32, BFLOAT16, FLOAT16 };

// Numbers of 16 bits, as they lie in memory.
struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

// A tensor (images, channels, height, width); strides count elements. Laid out as _native.py packs it.
struct Map {
    char *data;
    int64_t type, image, channel, row, column, height, width;
};

// Output o and tap t meet at o * output + t * tap - padding.
struct Axis {
    int64_t output, tap, padding;
};

// A map convolved with kernels (1, channels, kh, kw), or the reverse, and which result it is added to.
struct Branch {
    Map source, kernel;
    Axis vertical, horizontal;
    int64_t result;
};

struct Result {
    Map map;
    const float *bias;
};

// Kernels to differentiate for, (1, channels, kh, kw), and the gradient of what they gave.
struct Gradient {
    Map out_grad, taps;
    Axis vertical, horizontal;
};

struct ConvolutionsHead {
    int64_t branches, results, images, channels, transposed;
};

struct GradientsHead {
    int64_t gradients, images, channels, splits;
};

// GOMP_parallel of the OpenMP library that PyTorch uses: to share its threads keeps two pools off each other's feet.
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

// A block of channels as a grid of pixels with LANES numbers each; strides count numbers.
struct Grid {
    float *data;
    int64_t rows, columns, row, column;

    float *at(int64_t i, int64_t j) const { return data + i * row + j * column; }
    bool empty() const { return !rows || !columns; }
    Grid transposed() const { return {data, columns, rows, column, row}; }
    Grid flipped() const { return empty() ? *this : Grid{at(rows - 1, columns - 1), rows, columns, -row, -column}; }

    // Every `down`-th row and `across`-th column from (i, j).
    Grid lattice(int64_t i, int64_t j, int64_t down, int64_t across) const {
        auto count = [](int64_t size, int64_t step) { return size > 0 ? (size + step - 1) / step : 0; };
        return {at(i, j), count(rows - i, down), count(columns - j, across), row * down, column * across};
    }
};

// A pointer: of a reference, Clang would assume the alignment of whole vectors.
INLINE Unaligned *lanes(float *pixel) { return reinterpret_cast<Unaligned *>(pixel); }

INLINE Halves halves_at(const void *numbers) {
    Halves halves;
    std::memcpy(&halves, numbers, sizeof halves);
    return halves;
}

// GCC 12 takes six instructions for each of these with AVX-512, unless it is told.
INLINE Bits widened(const Halves &halves) {
#if defined(__AVX512F__)
    return reinterpret_cast<Bits>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(halves)));
#else
    return __builtin_convertvector(halves, Bits);
#endif
}

INLINE Halves narrowed(const Bits &bits) {
#if defined(__AVX512F__)
    return reinterpret_cast<Halves>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(bits)));
#else
    return __builtin_convertvector(bits, Halves);
#endif
}

// To fp32, exactly, and back: to the nearest, ties to even; NaN stays NaN.
INLINE Lanes widened(const Halves &halves, BFloat16) { return reinterpret_cast<Lanes>(widened(halves) << 16); }

INLINE Halves narrowed(const Lanes &value, BFloat16) {
    const Bits bits = reinterpret_cast<Bits>(value), nan = Bits{} + 0x7fc0;
    return narrowed(value != value ? nan : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#if defined(__AVX512F__)
INLINE Lanes widened(const Halves &halves, Float16) {
    return reinterpret_cast<Lanes>(_mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(halves)));
}

INLINE Halves narrowed(const Lanes &value, Float16) {
    return reinterpret_cast<Halves>(
        _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT)
    );
}
#elif defined(__F16C__)
INLINE Lanes widened(const Halves &halves, Float16) {
    return reinterpret_cast<Lanes>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(halves)));
}

INLINE Halves narrowed(const Lanes &value, Float16) {
    return reinterpret_cast<Halves>(_mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
#else
// Exponents of fp32 and fp16 have biases 127 and 15. No operand is subnormal in fp32, which might count as zero.
INLINE Lanes widened(const Halves &halves, Float16) {
    const Bits bits = widened(halves), magnitude = bits & 0x7fff;
    const Bits top = magnitude >= 0x7c00 ? Bits{} + (112 << 23) : Bits{};
    const Bits normal = (magnitude << 13) + (112 << 23) + top;
    const Lanes subnormal = __builtin_convertvector(reinterpret_cast<Integers>(magnitude), Lanes) * 0x1p-24f;
    const Bits number = magnitude < 0x400 ? reinterpret_cast<Bits>(subnormal) : normal;
    return reinterpret_cast<Lanes>(number | (bits & 0x8000) << 16);
}

INLINE Halves narrowed(const Lanes &value, Float16) {
    const Bits bits = reinterpret_cast<Bits>(value), magnitude = bits & 0x7fffffff;
    const Bits normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112 << 23)) >> 13;
    // The last bit of 0.5 is worth that of a subnormal number.
    const Bits subnormal = reinterpret_cast<Bits>(reinterpret_cast<Lanes>(magnitude) + 0.5f) - (126 << 23);
    const Bits beyond = magnitude > 255 << 23 ? Bits{} + 0x7e00 : Bits{} + 0x7c00;
    const Bits small = magnitude < 113 << 23 ? subnormal : normal;
    return narrowed((magnitude >= 143 << 23 ? beyond : small) | (bits >> 16 & 0x8000));
}
#endif

template <typename Number>
INLINE Lanes load(const Number *numbers) {
    return widened(halves_at(numbers), Number());
}

template <typename Number>
INLINE void store(Number *numbers, const Lanes &value) {
    const Halves halves = narrowed(value, Number());
    std::memcpy(numbers, &halves, sizeof halves);
}

INLINE Lanes load(const float *numbers) { return *reinterpret_cast<const Unaligned *>(numbers); }
INLINE void store(float *numbers, const Lanes &value) { *reinterpret_cast<Unaligned *>(numbers) = value; }

// A number in every lane. To take zeros away is no work, unlike to add them, which changes -0.
template <typename V = Lanes>
INLINE V spread(float number) {
    return number - V{};
}

// Keep a value in a register; else the compiler would load it again for every use.
template <typename V>
INLINE void keep(V &value) {
#if defined(__x86_64__)
    asm("" : "+v"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#endif
}

// The same for a pointer: the compiler does not know afterwards what lies there.
INLINE void keep(const float *&pointer) { asm("" : "+r"(pointer)); }

// ---------------------------------------------------------------------------------------------- the sum, unit steps

// Where a row of taps stands: the next tap and the first pixel that it meets.
struct Cursor {
    float *pixel, *taps;
    int64_t start, tap;  // `start` is the column of that pixel
};

// Take one tap of each of ROWS kernel rows, which serve rows FIRST, ... of the sums, and columns FROM to TO.
template <int FIRST, int ROWS, int FROM, int TO, int R, int T>
INLINE void step(Lanes (&sums)[R][T], Cursor &at, const Grid &kernel) {
    Lanes taps[R];
#pragma GCC unroll 2
    for (int r = FIRST; r < FIRST + ROWS; ++r) taps[r] = *lanes(at.taps - r * kernel.row);
#pragma GCC unroll 16
    for (int t = FROM; t < TO; ++t) {
        Lanes pixel = *lanes(at.pixel + t * LANES);
        keep(pixel);
#pragma GCC unroll 2
        for (int r = FIRST; r < FIRST + ROWS; ++r) sums[r][t] += pixel * taps[r];
    }
    at = {at.pixel + LANES, at.taps + kernel.column, at.start + 1, at.tap + 1};
}

// Taps that meet no pixel left of the map's edge only from column T - 1, T - 2, ..., 1 on.
template <int FIRST, int ROWS, int R, int T, int... I>
INLINE void enter(Lanes (&sums)[R][T], Cursor &at, const Grid &kernel, std::integer_sequence<int, I...>) {
    ((at.start == I + 1 - T && at.tap < kernel.columns ? step<FIRST, ROWS, T - 1 - I, T>(sums, at, kernel) : void()),
     ...);
}

// Taps that meet a pixel up to column T - 1, T - 2, ..., 1 only, the rest being right of the map's edge.
template <int FIRST, int ROWS, int R, int T, int... I>
INLINE void leave(
    Lanes (&sums)[R][T], Cursor &at, const Grid &kernel, int64_t last, std::integer_sequence<int, I...>
) {
    ((at.start == last + I + 1 && at.tap < kernel.columns ? step<FIRST, ROWS, 0, T - 1 - I>(sums, at, kernel) : void()),
     ...);
}

// Slide a row of the map, whose taps begin at `taps`, under T columns of sums.
template <int FIRST, int ROWS, int R, int T>
INLINE void slide(Lanes (&sums)[R][T], float *pixels, int64_t width, float *taps, const Grid &kernel, int64_t start) {
    const std::make_integer_sequence<int, T - 1> ramp;
    const int64_t skipped = std::max<int64_t>(0, 1 - T - start), last = width - T;
    start += skipped;
    Cursor at{pixels + start * LANES, taps + skipped * kernel.column, start, skipped};
    if (at.start < 0) enter<FIRST, ROWS>(sums, at, kernel, ramp);
    while (at.tap < kernel.columns && at.start <= last) step<FIRST, ROWS, 0, T>(sums, at, kernel);
    if (at.tap < kernel.columns) leave<FIRST, ROWS>(sums, at, kernel, last, ramp);
}

// What a sum starts from: a value, or what is there already.
struct Start {
    bool add;
    Lanes value;
};

// Compute R rows from row i, and T columns from column j.
template <int R, int T>
__attribute__((noinline)) void tile(
    const Grid &out, const Grid &x, const Grid &kernel, int64_t i, int64_t j, int64_t top, int64_t left,
    const Start &start
) {
    if (out.column != LANES)  // in a channels_last map, whose pixels come one by one
        for (int r = 0; r < R; ++r)
            for (int t = 0; t < T; ++t) __builtin_prefetch(out.at(i + r, j + t), 1);

    Lanes sums[R][T];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) sums[r][t] = start.value;

    // Row r of the sums is r taps behind: some rows of the map serve the first one only, most both, some the second.
    const int64_t last = top - i + x.rows;
    int64_t a = std::max<int64_t>(0, top - i);
    const auto row = [&](int64_t a) __attribute__((always_inline)) { return x.at(i + a - top, 0); };
    const int64_t alone = R == 1 ? kernel.rows : std::min<int64_t>(1, kernel.rows);
    for (const int64_t stop = std::min(alone, last); a < stop; ++a)
        slide<0, 1>(sums, row(a), x.columns, kernel.at(a, 0), kernel, j - left);
    if constexpr (R == 2) {
        for (const int64_t stop = std::min(kernel.rows, last); a < stop; ++a)
            slide<0, 2>(sums, row(a), x.columns, kernel.at(a, 0), kernel, j - left);
        a = std::max<int64_t>(a, 1);
        for (const int64_t stop = std::min(kernel.rows + 1, last); a < stop; ++a)
            slide<1, 1>(sums, row(a), x.columns, kernel.at(a, 0), kernel, j - left);
    }

#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            Unaligned &pixel = *lanes(out.at(i + r, j + t));
            pixel = start.add ? pixel + sums[r][t] : sums[r][t];
        }
}

template <int T>
void column_of_tiles(
    const Grid &out, const Grid &x, const Grid &kernel, int64_t j, int64_t top, int64_t left, const Start &start
) {
    int64_t i = 0;
    for (; i + 1 < out.rows; i += 2) tile<2, T>(out, x, kernel, i, j, top, left, start);
    if (i < out.rows) tile<1, T>(out, x, kernel, i, j, top, left, start);
}

typedef void (*Tiles)(const Grid &, const Grid &, const Grid &, int64_t, int64_t, int64_t, const Start &);

template <int... T>
Tiles tiles_of(int64_t width, std::integer_sequence<int, T...>) {
    static const Tiles functions[] = {column_of_tiles<T + 1>...};
    return functions[width - 1];
}

void fill(const Grid &out, const Lanes &value) {
    for (int64_t i = 0; i < out.rows; ++i)
        for (int64_t j = 0; j < out.columns; ++j) *lanes(out.at(i, j)) = value;
}

// The sum at the head of this file. Pixels of `x` lie close to each other.
void correlate(const Grid &out, const Grid &x, const Grid &kernel, int64_t top, int64_t left, const Start &start) {
    if (x.empty() || kernel.empty()) {
        if (!start.add) fill(out, start.value);
        return;
    }
    // Tiles no wider than the map lie over at most one of its edges. The widths differ by one at most.
    const int64_t most = std::min<int64_t>(MOST_COLUMNS, x.columns), tiles = (out.columns + most - 1) / most;
    for (int64_t n = 0, j = 0; n < tiles; ++n) {
        const int64_t width = (out.columns - j) / (tiles - n);
        tiles_of(width, std::make_integer_sequence<int, MOST_COLUMNS>())(out, x, kernel, j, top, left, start);
        j += width;
    }
}

// ---------------------------------------------------------------------------------------- the sum, along rows of a map

// Vectors hold neighbouring pixels of one channel, and a tap is a single number. That spares moving blocks of channels,
// which takes as long as to convolve them with a small kernel. Rows need zeros beside them where a map is padded; with
// AVX-512, masks stand for these, and rows are read where they are.
#if defined(__AVX512F__)
constexpr bool MASKS = true;
typedef __mmask16 Mask;

INLINE Lanes load(const float *numbers, Mask mask) {
    return reinterpret_cast<Lanes>(_mm512_maskz_loadu_ps(mask, numbers));
}

template <typename Number>
INLINE Lanes load(const Number *numbers, Mask mask) {
    return widened(reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(mask, numbers)), Number());
}

INLINE Run load_run(const float *numbers, Mask mask) {
    return reinterpret_cast<Run>(_mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), numbers));
}
#else
constexpr bool MASKS = false;
typedef uint16_t Mask;

template <typename T>
INLINE Lanes load(const T *numbers, Mask) {
    return load(numbers);
}

[[maybe_unused]] INLINE Run load_run(const float *numbers, Mask) {
    return *reinterpret_cast<const UnalignedRun *>(numbers);
}
#endif

Mask mask_of(int64_t first, int64_t stop) {
    Mask mask = 0;
    for (int64_t l = std::max<int64_t>(0, first); l < std::min<int64_t>(LANES, stop); ++l) mask |= 1 << l;
    return mask;
}

// Runs that are computed together: the column of the first, how many they are, and how far from that column on the last
// vector begins, which may overlap the one before. By column of the kernel, masks of the first vector and of the last.
struct Tile {
    int64_t column, runs, last;
    std::vector<std::array<Mask, 2>> masks;
};

// The pixels that a row of results meets, the rows below them, and the kernel that is moved over them, by column: how
// far it is from one to the next, and how many taps and columns there are. Before each, its last taps stand once more.
struct Lines {
    const float *pixels;
    int64_t row;
    const float *taps;
    int64_t column, height, width;
};

// R rows of V runs: whole vectors, and half a one if runs are halves and V is odd.
template <int R, int V>
struct Sums {
    static constexpr int VECTORS = V * RUN / LANES, HALVES = V * RUN % LANES / RUN;
    Lanes vectors[R][VECTORS];
    Run halves[R][HALVES];

    INLINE explicit Sums(float value) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) vectors[r][v] = spread(value);
            if constexpr (HALVES) halves[r][0] = spread<Run>(value);
        }
    }

    // Taps for rows FIRST, ... of sums, the r-th from r rows up the column.
    template <int FIRST, int ROWS>
    static INLINE void take(Lanes (&tap)[R], const float *taps) {
#pragma GCC unroll 8
        for (int r = FIRST; r < FIRST + ROWS; ++r) tap[r] = spread(taps[-r]);
    }

    // Pixels of a row times these taps.
    template <int FIRST, int ROWS>
    INLINE void meet(const Lanes (&tap)[R], const float *pixels, int64_t end, const std::array<Mask, 2> &masks) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const bool last = v + 1 == VECTORS + HALVES;
            const float *from = pixels + (last ? end : v * LANES);
            Lanes pixel = v && !last ? load(from) : load(from, masks[last]);
            keep(pixel);
#pragma GCC unroll 8
            for (int r = FIRST; r < FIRST + ROWS; ++r) vectors[r][v] += pixel * tap[r];
        }
        if constexpr (HALVES) {
            Run pixel = load_run(pixels + end, masks[1]);
            keep(pixel);
#pragma GCC unroll 8
            for (int r = FIRST; r < FIRST + ROWS; ++r) {
                Run half;
                std::memcpy(&half, &tap[r], sizeof half);
                halves[r][0] += pixel * half;
            }
        }
    }

    // Take a row of pixels into the sums that it serves, rows FIRST, ...
    template <int FIRST, int ROWS>
    INLINE void add(const Lines &x, const Tile &tile, int64_t row) {
        const float *pixels = x.pixels + row * x.row + tile.column, *taps = x.taps + row;
        for (int64_t b = 0; b < x.width; ++b, taps += x.column) {
            Lanes tap[R];
            take<FIRST, ROWS>(tap, taps);
            meet<FIRST, ROWS>(tap, pixels + b, tile.last, tile.masks[b]);
        }
    }

    // Take two rows of pixels, of which one serves the first rows of sums, and the other the rest.
    template <int FIRST>
    INLINE void add_both(const Lines &x, const Tile &tile) {
        const float *pixels = x.pixels + (FIRST - 1) * x.row + tile.column, *taps = x.taps + FIRST - 1;
        const int64_t row = x.height * x.row;
        for (int64_t b = 0; b < x.width; ++b, taps += x.column) {
            Lanes tap[R];
            take<0, R>(tap, taps);
            meet<0, FIRST>(tap, pixels + b, tile.last, tile.masks[b]);
            meet<FIRST, R - FIRST>(tap, pixels + row + b, tile.last, tile.masks[b]);
        }
    }

    // Rows of pixels that serve the first row of sums only, the first two, ...
    template <int... I>
    INLINE void enter(const Lines &x, const Tile &tile, int64_t first, int64_t stop, std::integer_sequence<int, I...>) {
        ((first <= I && I < stop ? add<0, I + 1>(x, tile, I) : void()), ...);
    }

    // Rows of pixels that serve all but the first row of sums, all but the first two, ...
    template <int... I>
    INLINE void leave(const Lines &x, const Tile &tile, int64_t first, int64_t stop, std::integer_sequence<int, I...>) {
        ((first <= x.height + I && x.height + I < stop ? add<I + 1, R - 1 - I>(x, tile, x.height + I) : void()), ...);
    }

    // Both, if all these rows are on the map. One by one, the shorter would be done before their pixels are loaded.
    template <int... I>
    INLINE void enter_and_leave(const Lines &x, const Tile &tile, std::integer_sequence<int, I...>) {
        (add_both<I + 1>(x, tile), ...);
    }

    INLINE void put(float *out, int64_t row, int64_t last) const {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r, out += row) {
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v)
                store(out + (v + 1 == VECTORS + HALVES ? last : v * LANES), vectors[r][v]);
            if constexpr (HALVES) *reinterpret_cast<UnalignedRun *>(out + last) = halves[r][0];
        }
    }
};

// Compute a tile of R rows, no more than the kernel has. Of the rows of pixels that it meets, those from `first` to
// `stop` are on the map.
template <int R, int V>
__attribute__((noinline)) void runs(
    float *out, int64_t row, const Lines &x, const Tile &tile, int64_t first, int64_t stop, float start
) {
    const std::make_integer_sequence<int, R - 1> ramp;
    const bool whole = first == 0 && stop == x.height + R - 1;
    Sums<R, V> sums(start);
    whole ? sums.enter_and_leave(x, tile, ramp) : sums.enter(x, tile, first, stop, ramp);
    for (int64_t a = std::max<int64_t>(first, R - 1), end = std::min(stop, x.height); a < end; ++a)
        sums.template add<0, R>(x, tile, a);
    if (!whole) sums.leave(x, tile, first, stop, ramp);
    sums.put(out + tile.column, row, tile.last);
}

typedef void (*Runs)(float *, int64_t, const Lines &, const Tile &, int64_t, int64_t, float);

template <int... I>
Runs runs_of(int64_t rows, int64_t count, std::integer_sequence<int, I...>) {
    static const Runs functions[MOST_ROWS][MOST_RUNS - 1] = {runs<I / (MOST_RUNS - 1) + 1, I % (MOST_RUNS - 1) + 2>...};
    return functions[rows - 1][count - 2];
}

// ----------------------------------------------------------------------------------------- the sum, rolling down a map

// With AVX-512, square kernels of few sizes roll down a strip of the map: SIZE rows of sums meet a row of pixels at
// once, each with another row of taps. Then the oldest of them is done, and makes room for the next. So a pixel is
// loaded as often as the kernel is wide, whatever its height. SIZE rows of sums, a column of taps and a pixel have to
// fit the registers, for which 16 are too few. Rows are copied beside zeros, as fp32: some processors are slow to load
// by masks.
constexpr bool is_rolled(int64_t size) { return MASKS && (size == 3 || size == 5 || size == 7); }
constexpr int most_rolled(int size) { return size < 7 ? 4 : 3; }

// How many taps of a column stand before it once more, at most: there is one less than rows of sums.
constexpr int64_t MOST_REPEATED = 7;
static_assert(MOST_ROWS <= MOST_REPEATED + 1);

// A strip of the results, some vectors wide, of which the last begins at `last` and may overlap the one before. Rows of
// pixels are numbered from `pixels` on. Rows `first` to `stop` are on the map; after row i, from `begin` to `end`, row
// i - begin of the results is done.
template <typename T>
struct Strip {
    const T *pixels;
    int64_t pixels_row, width, first, stop;
    Mask mask;  // of the pixels in a row, should they be fewer than a vector has
    T *out;
    int64_t out_row, last, begin, end;
    const float *taps;
    float start;
    float *scratch;  // two rows, which begin with the first column that the results meet
    int64_t scratch_row, margin;  // zeros before the pixels

    float *row(int64_t i) const { return scratch + (i & 1) * scratch_row; }

    // Copy a row of pixels beside zeros, some time before they are loaded again in other pieces.
    void fetch(int64_t i) const {
        if (i < first || i >= stop) return;
        const T *from = pixels + i * pixels_row;
        float *to = row(i) + margin;
        if (width < LANES) return store(to, load(from, mask));
        for (int64_t j = 0; j + LANES < width; j += LANES) store(to + j, load(from + j));
        store(to + width - LANES, load(from + width - LANES));
    }
};

// Take a row of pixels into the sums, of which those of row PHASE begin with it.
template <int SIZE, int V, int PHASE, typename T>
INLINE bool roll_on(Lanes (&sums)[SIZE][V], const Strip<T> &strip, int64_t &i) {
    constexpr int PIXELS_AHEAD = 16, RESULTS_AHEAD = 8;
    if (i >= strip.end) return false;
    strip.fetch(i + 1);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        __builtin_prefetch(strip.pixels + (i + PIXELS_AHEAD) * strip.pixels_row + v * LANES);
        __builtin_prefetch(strip.out + (i - strip.begin + RESULTS_AHEAD) * strip.out_row + v * LANES, 1);
    }
    if (i >= strip.first && i < strip.stop) {
        const float *pixels = strip.row(i), *taps = strip.taps;
#pragma GCC unroll 8
        for (int b = 0; b < SIZE; ++b) {
            keep(taps);  // or the compiler would load the taps of all columns at once
            Lanes tap[SIZE];
#pragma GCC unroll 8
            for (int r = 0; r < SIZE; ++r) tap[r] = spread(taps[b * (2 * SIZE - 1) + PHASE - r]);  // Rows::column()
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                Lanes pixel = load(pixels + b + (v + 1 == V ? strip.last : v * LANES));
                keep(pixel);
#pragma GCC unroll 8
                for (int r = 0; r < SIZE; ++r) sums[r][v] += pixel * tap[r];
            }
        }
    }
    constexpr int DONE = (PHASE + 1) % SIZE;
    if (i >= strip.begin) {
        T *out = strip.out + (i - strip.begin) * strip.out_row;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(out + (v + 1 == V ? strip.last : v * LANES), sums[DONE][v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[DONE][v] = spread(strip.start);
    ++i;
    return true;
}

template <int SIZE, int V, typename T, int... PHASE>
INLINE void roll_down(const Strip<T> &strip, std::integer_sequence<int, PHASE...>) {
    Lanes sums[SIZE][V];
#pragma GCC unroll 8
    for (int r = 0; r < SIZE; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = spread(strip.start);
    strip.fetch(0);
    for (int64_t i = 0; (roll_on<SIZE, V, PHASE>(sums, strip, i) && ...);) {}
}

template <int SIZE, int V, typename T>
__attribute__((noinline)) void roll(const Strip<T> &strip) {
    roll_down<SIZE, V>(strip, std::make_integer_sequence<int, SIZE>());
}

template <typename T>
using Roll = void (*)(const Strip<T> &);

template <int SIZE, typename T, int... V>
Roll<T> roll_of(int64_t vectors, std::integer_sequence<int, V...>) {
    if constexpr (is_rolled(SIZE)) {
        static const Roll<T> functions[] = {roll<SIZE, V + 1, T>...};
        return functions[vectors - 1];
    }
    return nullptr;
}

template <typename T>
Roll<T> roll_of(int64_t size, int64_t vectors) {
    if (size == 3) return roll_of<3, T>(vectors, std::make_integer_sequence<int, most_rolled(3)>());
    if (size == 5) return roll_of<5, T>(vectors, std::make_integer_sequence<int, most_rolled(5)>());
    return roll_of<7, T>(vectors, std::make_integer_sequence<int, most_rolled(7)>());
}

// ------------------------------------------------------------------ the gradient of small kernels, along rows of a map

// Rows of a map and of its output's gradient, cut into as many vectors, and how far it is to the next maps. By vector,
// which pixels of the gradient there are; by vector and column of the kernel, which of those on the map they meet.
struct RowPair {
    const float *pixels, *grads;
    int64_t pixels_row, grads_row, next_pixels, next_grads, vectors, width;
    const Mask *grad_masks, *pixel_masks;
};

// Take a row of pixels into sums for A by B taps. It meets the gradient's row at `grads` for the first row of taps, and
// for the next ones those above, which are in registers already.
template <int A, int B, int PHASE>
INLINE bool meet_row(
    Lanes (&sums)[A][B], Lanes (&grad)[A], const float *&pixels, const float *&grads, const RowPair &at, int64_t &rows,
    Mask mask, const Mask *masks
) {
    if (!rows--) return false;
    __builtin_prefetch(pixels + at.next_pixels);
    __builtin_prefetch(grads + at.next_grads);
    grad[PHASE] = load(grads, mask);
    keep(grad[PHASE]);
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
        Lanes pixel = load(pixels + b, masks[b]);
        keep(pixel);
#pragma GCC unroll 8
        for (int a = 0; a < A; ++a) sums[a][b] += grad[(PHASE - a + A) % A] * pixel;
    }
    pixels += at.pixels_row;
    grads += at.grads_row;
    return true;
}

template <int A, int B, int... PHASE>
INLINE void meet(float *taps, const RowPair &at, int64_t rows, std::integer_sequence<int, PHASE...>) {
    Lanes sums[A][B] = {};
    for (int64_t v = 0; v < at.vectors; ++v) {
        const Mask mask = at.grad_masks[v], *masks = at.pixel_masks + v * at.width;
        const float *pixels = at.pixels + v * LANES, *grads = at.grads + v * LANES;
        Lanes grad[A];
#pragma GCC unroll 8
        for (int a = 1; a < A; ++a) grad[A - a] = load(grads - a * at.grads_row, mask);
        for (int64_t left = rows; (meet_row<A, B, PHASE>(sums, grad, pixels, grads, at, left, mask, masks) && ...);) {}
    }
#pragma GCC unroll 8
    for (int a = 0; a < A; ++a)
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b) *lanes(taps + (a * at.width + b) * LANES) += sums[a][b];
}

template <int A, int B>
__attribute__((noinline)) void meet_rows(float *taps, const RowPair &at, int64_t rows) {
    meet<A, B>(taps, at, rows, std::make_integer_sequence<int, A>());
}

typedef void (*MeetRows)(float *, const RowPair &, int64_t);
constexpr int MOST_TAPS = 3;

template <int... I>
MeetRows meet_rows_of(int64_t rows, int64_t columns, std::integer_sequence<int, I...>) {
    static const MeetRows functions[MOST_TAPS][MOST_TAPS] = {meet_rows<I / MOST_TAPS + 1, I % MOST_TAPS + 1>...};
    return functions[rows - 1][columns - 1];
}

// -------------------------------------------------------------------------------------------- stride and dilation

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

Grid compact(const Grid &x, float *buffer) {
    const Grid out{buffer, x.rows, x.columns, x.columns * LANES, LANES};
    for (int64_t i = 0; i < x.rows; ++i)
        for (int64_t j = 0; j < x.columns; ++j) *lanes(out.at(i, j)) = *lanes(x.at(i, j));
    return out;
}

// Call a function for every pair of an output's lattice, of pixels `tap` apart, with a kernel's, of taps `output`
// apart. On both axes they meet the same lattice of the map, (output * tap) apart, at `first` and from pixel `shift` of
// it on.
struct Meeting {
    int64_t output, tap, first, shift;
};

template <typename F>
void for_meetings(const Axis &v, const Axis &h, const Grid &out, const Grid &kernel, F &&function) {
    auto meet = [](const Axis &axis, int64_t output, int64_t tap) {
        const int64_t step = axis.output * axis.tap, at = output * axis.output + tap * axis.tap - axis.padding;
        const int64_t shift = floor_div(at, step);
        return Meeting{output, tap, at - shift * step, shift};
    };
    // Beyond the first, lattices that steps longer than a side leave empty add nothing.
    auto lattices = [](int64_t step, int64_t side) { return std::max<int64_t>(1, std::min(step, side)); };
    for (int64_t i = 0; i < lattices(v.tap, out.rows); ++i)
        for (int64_t j = 0; j < lattices(h.tap, out.columns); ++j)
            for (int64_t a = 0; a < lattices(v.output, kernel.rows); ++a)
                for (int64_t b = 0; b < lattices(h.output, kernel.columns); ++b)
                    function(meet(v, i, a), meet(h, j, b));
}

// Convolve: out[i, j] += sum of kernel[a, b] * x[where i and a meet, where j and b meet].
void gather(
    const Grid &out, const Grid &x, const Grid &kernel, const Axis &v, const Axis &h, float *buffer, const Start &start
) {
    const int64_t down = v.output * v.tap, across = h.output * h.tap;
    for_meetings(v, h, out, kernel, [&](const Meeting &y, const Meeting &z) {
        const Grid met = x.lattice(y.first, z.first, down, across);
        const bool add = start.add || y.tap || z.tap;
        correlate(
            out.lattice(y.output, z.output, v.tap, h.tap), across > 1 ? compact(met, buffer) : met,
            kernel.lattice(y.tap, z.tap, v.output, h.output), -y.shift, -z.shift, {add, add ? Lanes{} : start.value}
        );
    });
}

// The transposed convolution: x[where i and a meet, where j and b meet] += sum of kernel[a, b] * grad[i, j].
void scatter(
    const Grid &x, const Grid &grad, const Grid &kernel, const Axis &v, const Axis &h, float *buffer, const Start &start
) {
    const int64_t down = v.output * v.tap, across = h.output * h.tap;
    if (down * across > 1 && !start.add) fill(x, start.value);
    for_meetings(v, h, grad, kernel, [&](const Meeting &y, const Meeting &z) {
        const Grid taps = kernel.lattice(y.tap, z.tap, v.output, h.output).flipped();
        const Grid met = grad.lattice(y.output, z.output, v.tap, h.tap);
        const Start from = down * across > 1 ? Start{true, {}} : start;
        correlate(
            x.lattice(y.first, z.first, down, across), h.tap > 1 ? compact(met, buffer) : met, taps,
            y.shift + taps.rows - 1, z.shift + taps.columns - 1, from
        );
    });
}

// ------------------------------------------------------------------------------------- blocks of channels, in and out

// Channels from `channel` on, one a lane. Lanes `first` to `stop` are the block's own: the last block overlaps the one
// before, so that it can be read as a whole, and lanes beyond few channels repeat the last of these.
struct Block {
    int64_t channel, first, stop;

    bool whole() const { return stop - first == LANES; }
};

int64_t blocks_of(int64_t channels) { return (channels + LANES - 1) / LANES; }

Block block_of(int64_t index, int64_t channels) {
    if (channels < LANES) return {0, 0, channels};
    const int64_t channel = std::min(index * LANES, channels - LANES);
    return {channel, index * LANES - channel, LANES};
}

template <int... I>
INLINE void interleave(const Lanes &a, const Lanes &b, Lanes &low, Lanes &high, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * LANES)...);
    high = __builtin_shufflevector(a, b, (LANES / 2 + I / 2 + I % 2 * LANES)...);
#else
    low = __builtin_shuffle(a, b, Integers{(I / 2 + I % 2 * LANES)...});
    high = __builtin_shuffle(a, b, Integers{(LANES / 2 + I / 2 + I % 2 * LANES)...});
#endif
}

INLINE float total(Lanes numbers) {
#pragma GCC unroll 4
    for (int distinct = LANES; distinct > 1; distinct /= 2) {
        Lanes low, high;
        interleave(numbers, numbers, low, high, std::make_integer_sequence<int, LANES>());
        numbers = low + high;
    }
    return numbers[0];
}

// Transpose a square: as many shuffles of a deck of cards as its side has factors of two.
INLINE void transpose(Lanes (&square)[LANES]) {
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
        Lanes next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; ++i)
            interleave(
                square[i], square[i + LANES / 2], next[2 * i], next[2 * i + 1], std::make_integer_sequence<int, LANES>()
            );
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) square[i] = next[i];
    }
}

// Walk the pixels of a grid row by row, as they follow each other in a contiguous map.
class Walk {
  public:
    explicit Walk(const Grid &grid) : grid(grid), pixel(grid.data) {}
    float *operator*() const { return pixel; }
    void operator++() {
        pixel += grid.column;
        if (++j == grid.columns) pixel = grid.at(++i, j = 0);
    }

  private:
    const Grid &grid;
    float *pixel;
    int64_t i = 0, j = 0;
};

// Pixels of a channels_last map are too far apart for the processor to foresee the next ones: ask for them so early.
constexpr int64_t AHEAD = 16;

template <typename T>
void read_as(const Map &map, int64_t image, const Block &block, const Grid &pixels) {
    const T *origin = reinterpret_cast<const T *>(map.data) + image * map.image + block.channel * map.channel;
    if (map.channel == 1 && block.stop == LANES) {
        for (int64_t i = 0; i < map.height; ++i)
            for (int64_t j = 0; j < map.width; ++j) {
                const T *pixel = origin + i * map.row + j * map.column;
                __builtin_prefetch(pixel + AHEAD * map.column);
                *lanes(pixels.at(i, j)) = load(pixel);
            }
        return;
    }
    const T *channels[LANES];
    for (int l = 0; l < LANES; ++l) channels[l] = origin + std::min<int64_t>(l, block.stop - 1) * map.channel;
    const int64_t area = map.height * map.width;
    int64_t done = 0;
    Walk pixel(pixels);
    if (map.column == 1 && map.row == map.width)
        for (; done + LANES <= area; done += LANES) {
            Lanes square[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; ++l) square[l] = load(channels[l] + done);
            transpose(square);
#pragma GCC unroll 16
            for (int l = 0; l < LANES; ++l, ++pixel) *lanes(*pixel) = square[l];
        }
    for (; done < area; ++done, ++pixel) {
        const int64_t offset = done / map.width * map.row + done % map.width * map.column;
        T numbers[LANES];
        for (int l = 0; l < LANES; ++l) numbers[l] = channels[l][offset];
        *lanes(*pixel) = load(numbers);
    }
}

// Store lanes of a channels_last pixel from `first` on; pieces of fixed sizes need no call.
template <typename T>
INLINE void store_from(int64_t first, T *to, const Lanes &value) {
    T numbers[LANES];
    store(numbers, value);
#pragma GCC unroll 4
    for (int size = 1; size < LANES; size *= 2)
        if ((LANES - first) & size) {
            std::memcpy(to + first, numbers + first, size * sizeof(T));
            first += size;
        }
}

template <typename T>
void write_as(const Map &map, int64_t image, const Block &block, const Grid &pixels) {
    T *origin = reinterpret_cast<T *>(map.data) + image * map.image + block.channel * map.channel;
    if (map.channel == 1 && block.stop == LANES) {
        for (int64_t i = 0; i < map.height; ++i)
            for (int64_t j = 0; j < map.width; ++j) {
                T *to = origin + i * map.row + j * map.column;
                if (block.whole())
                    store(to, *lanes(pixels.at(i, j)));
                else
                    store_from(block.first, to, *lanes(pixels.at(i, j)));
            }
        return;
    }
    const int64_t area = map.height * map.width;
    int64_t done = 0;
    Walk pixel(pixels);
    if (map.column == 1 && map.row == map.width)
        for (; done + LANES <= area; done += LANES) {
            Lanes square[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; ++l, ++pixel) square[l] = *lanes(*pixel);
            transpose(square);
#pragma GCC unroll 16
            for (int l = 0; l < LANES; ++l)
                if (l >= block.first && l < block.stop) store(origin + l * map.channel + done, square[l]);
        }
    for (; done < area; ++done, ++pixel) {
        T numbers[LANES];
        store(numbers, *lanes(*pixel));
        T *to = origin + done / map.width * map.row + done % map.width * map.column;
        for (int64_t l = block.first; l < block.stop; ++l) to[l * map.channel] = numbers[l];
    }
}

// Call a function with a number of the type.
template <typename F>
auto with_type(int64_t type, F &&function) {
    if (type == FLOAT32) return function(float());
    return type == BFLOAT16 ? function(BFloat16()) : function(Float16());
}

void read(const Map &map, int64_t image, const Block &block, const Grid &pixels) {
    with_type(map.type, [&](auto number) { read_as<decltype(number)>(map, image, block, pixels); });
}

void write(const Map &map, int64_t image, const Block &block, const Grid &pixels) {
    with_type(map.type, [&](auto number) { write_as<decltype(number)>(map, image, block, pixels); });
}

// Uninitialised memory for some pixels.
class Buffer {
  public:
    explicit Buffer(int64_t pixels) : data(::operator new(pixels * sizeof(Lanes), alignment)) {}
    Buffer(Buffer &&other) : data(std::exchange(other.data, nullptr)) {}
    ~Buffer() { ::operator delete(data, alignment); }
    operator float *() const { return static_cast<float *>(data); }

  private:
    static constexpr std::align_val_t alignment{64};
    void *data;
};

int64_t area(const Map &map) { return map.height * map.width; }

template <typename T = float>
T *row_of(const Map &map, int64_t image, int64_t channel, int64_t row) {
    return reinterpret_cast<T *>(map.data) + image * map.image + channel * map.channel + row * map.row;
}

float number_at(const Map &map, int64_t channel, int64_t row, int64_t column) {
    if (map.type == FLOAT32) return row_of(map, 0, channel, row)[column * map.column];
    const Halves halves = Halves{} + row_of<uint16_t>(map, 0, channel, row)[column * map.column];
    return (map.type == BFLOAT16 ? widened(halves, BFloat16()) : widened(halves, Float16()))[0];
}

int64_t divide_up(int64_t a, int64_t b) { return -floor_div(-a, b); }
int64_t rounded_up(int64_t numbers) { return divide_up(numbers, LANES) * LANES; }

// Some rows of a map.
Map rows_of(const Map &map, int64_t first, int64_t stop) {
    Map some = map;
    some.data += first * map.row * (map.type == FLOAT32 ? 4 : 2);
    some.height = stop - first;
    return some;
}

Grid dense(const Map &map, float *buffer, bool columns = false) {
    if (columns) return Grid{buffer, map.width, map.height, map.height * LANES, LANES}.transposed();
    return {buffer, map.height, map.width, map.width * LANES, LANES};
}

// Lines of sums follow the longer side of the kernels: rows, or columns.
bool along_columns(const Map &kernel) { return kernel.height > kernel.width; }

// Hand out tasks to threads, a few neighbours at a time; `Worker` has scratch memory of its own. False if there is too
// little memory for a single one.
template <typename Worker, typename Job>
bool run(const Job &job, int64_t tasks, Parallel parallel, int64_t threads) {
    struct Shared {
        const Job &job;
        int64_t tasks, grain;
        std::atomic<int64_t> next;
    } shared{job, tasks, std::max<int64_t>(1, tasks / (4 * threads)), {0}};
    void (*work)(void *) = [](void *data) {
        Shared &shared = *static_cast<Shared *>(data);
        try {
            Worker worker(shared.job);
            for (int64_t task; (task = shared.next.fetch_add(shared.grain)) < shared.tasks;)
                for (const int64_t stop = std::min(task + shared.grain, shared.tasks); task < stop; ++task)
                    worker(task);
        } catch (const std::bad_alloc &) {  // before it took a task: that is left to the others
        }
    };
    threads = std::min(threads, tasks);
    if (threads <= 1) {
        work(&shared);
    } else if (parallel) {
        parallel(work, &shared, threads, 0);
    } else {
        std::vector<std::thread> others;
        try {
            for (int64_t i = 1; i < threads; ++i) others.emplace_back(work, &shared);
        } catch (const std::system_error &) {  // fewer do as well
        }
        work(&shared);
        for (std::thread &other : others) other.join();
    }
    return shared.next >= tasks;
}

// ------------------------------------------------------------------------------------------------------------- jobs

// A band: the rows that a task computes, and those of the map (or, transposed, of the output's gradient) that they
// need.
struct Band {
    Map source, result;
    Axis vertical;
};

// Bands are cut so that what a task reads and writes stays in the L2 cache, if kernels are not too tall for that, nor
// maps too wide: a band is as wide as the map.
constexpr int64_t MOST_PIXELS = (512 << 10) / sizeof(Lanes);

// Rows of the map that `rows` rows of the output meet, or of the output that meet `rows` rows of the map.
int64_t reach(const Axis &axis, int64_t taps, int64_t rows, bool transposed) {
    const int64_t halo = (taps - 1) * axis.tap;
    return transposed ? (rows - 1 + halo) / axis.output + 1 : (rows - 1) * axis.output + halo + 1;
}

int64_t rows_of_band(const Map &source, const Map &result, const Axis &axis, int64_t taps, bool transposed) {
    auto pixels = [&](int64_t rows) {
        return std::min(reach(axis, taps, rows, transposed), source.height) * source.width + rows * result.width;
    };
    const int64_t least = std::min(result.height, std::max<int64_t>(taps, 8));
    int64_t bands = 1;
    auto rows = [&] { return divide_up(result.height, bands); };
    while (rows() > least && pixels(rows()) > MOST_PIXELS) ++bands;
    return rows();
}

Band band_of(
    const Map &source, const Map &result, const Axis &axis, int64_t taps, int64_t first, int64_t stop, bool transposed
) {
    const int64_t halo = (taps - 1) * axis.tap;
    int64_t from, to;
    if (transposed) {
        from = divide_up(first + axis.padding - halo, axis.output);
        to = floor_div(stop - 1 + axis.padding, axis.output) + 1;
    } else {
        from = first * axis.output - axis.padding;
        to = (stop - 1) * axis.output + halo - axis.padding + 1;
    }
    from = std::clamp<int64_t>(from, 0, source.height);
    to = std::clamp<int64_t>(to, from, source.height);
    const int64_t shift = transposed ? first - from * axis.output : from - first * axis.output;
    return {rows_of(source, from, to), rows_of(result, first, stop), {axis.output, axis.tap, axis.padding + shift}};
}

// A block of channels of a band, read at most once for each direction of lines.
class Source {
  public:
    explicit Source(int64_t pixels) : buffers{Buffer(pixels), Buffer(pixels)} {}

    void forget() { held[0].data = held[1].data = nullptr; }

    Grid get(const Map &map, int64_t image, const Block &block, bool columns) {
        const Grid grid = dense(map, buffers[columns], columns);
        Map &known = held[columns];
        if (std::memcmp(&known, &map, sizeof map)) read(map, image, block, grid);
        known = map;
        return grid;
    }

  private:
    Buffer buffers[2];
    Map held[2] = {};
};

void correlate_along(
    bool columns, bool transposed, const Grid &out, const Grid &x, const Grid &kernel, const Axis &vertical,
    const Axis &horizontal, float *lattice, const Start &start
) {
    const auto convolve = transposed ? scatter : gather;
    if (columns)
        convolve(out.transposed(), x.transposed(), kernel.transposed(), horizontal, vertical, lattice, start);
    else
        convolve(out, x, kernel, vertical, horizontal, lattice, start);
}

struct Convolutions {
    const Branch *branches;
    const Result *results;
    int64_t count, images, channels;
    bool transposed;
    int64_t band, pixels;         // rows of a band, and most pixels of a source that one needs
    std::vector<Buffer> kernels;  // of each branch, block by block

    int64_t blocks() const { return blocks_of(channels); }
    int64_t bands() const { return band ? divide_up(results[0].map.height, band) : 0; }

    Grid kernel(int64_t branch, int64_t index) const {
        const Map &map = branches[branch].kernel;
        return dense(map, kernels[branch] + index * area(map) * LANES);
    }
};

// Lay out the kernels of a block.
class Pack {
  public:
    explicit Pack(const Convolutions &job) : job(job) {}

    void operator()(int64_t index) {
        for (int64_t n = 0; n < job.count; ++n)
            read(job.branches[n].kernel, 0, block_of(index, job.channels), job.kernel(n, index));
    }

  private:
    const Convolutions &job;
};

// Neighbouring tasks are blocks of the same pixels, which are neighbours in a channels_last map.
class Convolve {
  public:
    explicit Convolve(const Convolutions &job)
        : job(job), sums(job.band * job.results[0].map.width), lattice(job.pixels), source(job.pixels) {}

    void operator()(int64_t task) {
        const int64_t index = task % job.blocks();
        const Block block = block_of(index, job.channels);
        const int64_t image = task / job.blocks() / job.bands(), row = task / job.blocks() % job.bands() * job.band;
        source.forget();
        for (int64_t n = 0; n < job.count; ++n) {
            const Branch &branch = job.branches[n];
            const Result &result = job.results[branch.result];
            const int64_t stop = std::min(row + job.band, result.map.height);
            const Band band =
                band_of(branch.source, result.map, branch.vertical, branch.kernel.height, row, stop, job.transposed);
            const bool first = n == 0 || branch.result != job.branches[n - 1].result;
            const bool last = n + 1 == job.count || branch.result != job.branches[n + 1].result;
            // Whole blocks of channels_last results are computed where they belong.
            const bool in_place = result.map.type == FLOAT32 && result.map.channel == 1 && block.whole();
            const Grid out = in_place ? placed(band.result, image, block.channel) : dense(band.result, sums);
            Start start{!first, {}};
            if (first && result.bias)
                for (int64_t l = 0; l < block.stop; ++l) start.value[l] = result.bias[block.channel + l];
            const bool columns = along_columns(branch.kernel);
            const Grid x = source.get(band.source, image, block, columns);
            correlate_along(
                columns, job.transposed, out, x, job.kernel(n, index), band.vertical, branch.horizontal, lattice, start
            );
            if (last && !in_place) write(band.result, image, block, out);
        }
    }

  private:
    static Grid placed(const Map &map, int64_t image, int64_t channel) {
        float *data = reinterpret_cast<float *>(map.data) + image * map.image + channel;
        return {data, map.height, map.width, map.row, map.column};
    }

    const Convolutions &job;
    Buffer sums, lattice;
    Source source;
};

// What is convolved along rows: maps whose rows are contiguous, without stride or dilation, and wide enough.
constexpr int64_t LEAST_WIDTH = 24;
// Rows that a kernel rolls down at least, if there are so many: it takes some to start with, and nothing has to stay in
// the cache meanwhile.
constexpr int64_t LEAST_ROLLED = 64;

bool has_rows(const Map &map) { return map.type == FLOAT32 && map.column == 1; }

bool has_unit_steps(const Axis &v, const Axis &h) { return v.output * v.tap * h.output * h.tap == 1; }

// A single branch with unit steps on contiguous maps, convolved along rows, in tiles or rolling down strips.
struct Rows {
    const Convolutions &job;
    const Map &source, &kernel, &result;
    int64_t top, left;  // zeros before the map, as the kernel sees them that is moved over it
    int64_t reach;      // how far right of itself a result still meets pixels
    bool rolls;
    bool in_place;  // whether pixels are read where they are
    Buffer taps;
    std::vector<Tile> tiles;

    // Whether that is faster, and possible.
    static bool suit(const Convolutions &job) {
        const Branch &branch = job.branches[0];
        const Map &kernel = branch.kernel, &result = job.results[0].map;
        if (job.count > 1 || !has_unit_steps(branch.vertical, branch.horizontal) || !area(kernel)) return false;
        if (can_roll(kernel, result))
            return branch.source.column == 1 && result.column == 1 && branch.source.type == result.type;
        return has_rows(branch.source) && has_rows(result) && result.width >= LEAST_WIDTH &&
               kernel.width <= std::min<int64_t>(13, result.width / 5);
    }

    explicit Rows(const Convolutions &job)
        : job(job), source(job.branches[0].source), kernel(job.branches[0].kernel), result(job.results[0].map),
          top(before(job.branches[0].vertical, kernel.height)), left(before(job.branches[0].horizontal, kernel.width)),
          reach(kernel.width - 1 - left), rolls(can_roll(kernel, result)), in_place(MASKS && !rolls),
          taps(divide_up(job.channels * kernel.width * column(), LANES)) {
        if (!rolls) plan_tiles();
    }

    float *taps_of(int64_t channel) const { return taps + channel * kernel.width * column() + repeated(); }

    float start_of(int64_t channel) const {
        const float *bias = job.results[0].bias;
        return bias ? bias[channel] : 0;
    }

    // Neighbouring tasks are bands of one channel: rows `row` to `stop` of the result.
    struct Place {
        int64_t image, channel, row, stop;
    };

    Place place_of(int64_t task) const {
        const int64_t map = task / job.bands(), row = task % job.bands() * job.band;
        return {map / job.channels, map % job.channels, row, std::min(row + job.band, result.height)};
    }

    // How far it is from column to column of taps, and how many of these stand before each once more.
    int64_t column() const { return repeated() + kernel.height; }
    int64_t repeated() const { return std::min(kernel.height - 1, MOST_REPEATED); }

  private:
    static bool can_roll(const Map &kernel, const Map &result) {
        return kernel.height == kernel.width && is_rolled(kernel.width) &&
               (result.width == LANES || result.width >= LEAST_WIDTH);
    }

    int64_t before(const Axis &axis, int64_t taps) const {
        return job.transposed ? taps - 1 - axis.padding : axis.padding;
    }

    void plan_tiles() {
        const int64_t runs = divide_up(result.width, RUN), count = divide_up(runs, MOST_RUNS);
        for (int64_t n = 0, column = 0; n < count; ++n) {
            const int64_t some = runs / count + (n < runs % count), size = some * RUN % LANES ? RUN : LANES;
            const int64_t last = some * RUN - size;
            tiles.push_back({column, some, std::min(last, result.width - column - size), {}});
            // Vectors between the first and the last have no masks.
            in_place = in_place && left <= column + LANES && column + last + reach <= source.width;
            column += some * RUN;
        }
        for (Tile &tile : tiles)
            for (int64_t b = 0; b < kernel.width; ++b)
                tile.masks.push_back({mask(tile.column + b - left), mask(tile.column + tile.last + b - left)});
    }

    Mask mask(int64_t column) const {
        return in_place ? mask_of(-column, source.width - column) : mask_of(0, LANES);
    }
};

// Lay out the kernel of a channel, as it is moved over the map.
class PackRows {
  public:
    explicit PackRows(const Rows &rows) : rows(rows) {}

    void operator()(int64_t channel) {
        const Map &kernel = rows.kernel;
        const auto turned = [&](int64_t tap, int64_t taps) { return rows.job.transposed ? taps - 1 - tap : tap; };
        float *column = rows.taps_of(channel);
        for (int64_t b = 0; b < kernel.width; ++b, column += rows.column()) {
            for (int64_t a = 0; a < kernel.height; ++a)
                column[a] = number_at(kernel, channel, turned(a, kernel.height), turned(b, kernel.width));
            std::copy_n(column + kernel.height - rows.repeated(), rows.repeated(), column - rows.repeated());
        }
    }

  private:
    const Rows &rows;
};

class ConvolveRows {
  public:
    explicit ConvolveRows(const Rows &rows)
        : rows(rows), width(std::min(rows.source.width, rows.result.width + rows.reach)),
          margin(rounded_up(std::max<int64_t>(0, rows.left))),
          stride(rounded_up(std::max(width + rows.left, rows.result.width + rows.reach))),
          size(rows.in_place ? 0 : margin + (rows.job.band + rows.kernel.height - 1) * stride), scratch(size / LANES) {
        std::fill_n(static_cast<float *>(scratch), size, 0.f);
    }

    void operator()(int64_t task) {
        const auto [image, channel, row, end] = rows.place_of(task);
        const int64_t rest = end - row;
        // Groups of rows, whose heights differ by one at most.
        const int64_t groups = divide_up(rest, std::min<int64_t>(MOST_ROWS, rows.kernel.height));
        int64_t copied = std::max<int64_t>(0, row - rows.top);
        for (int64_t n = 0, i = row; n < groups; ++n) {
            const int64_t height = rest / groups + (n < rest % groups);
            // They meet pixels from row `above` on; from `first` to `stop`, counted from there, are on the map.
            const int64_t above = i - rows.top, first = std::max<int64_t>(0, -above);
            const int64_t stop = std::min(height + rows.kernel.height - 1, rows.source.height - above);
            float *pixels = scratch + margin + (i - row) * stride;
            if (rows.in_place)
                pixels = row_of(rows.source, image, channel, above);
            else
                for (; copied < above + stop; ++copied)
                    std::copy_n(row_of(rows.source, image, channel, copied), width, pixels + (copied - above) * stride);
            const Lines x{
                pixels - rows.left, rows.in_place ? rows.source.row : stride, rows.taps_of(channel), rows.column(),
                rows.kernel.height, rows.kernel.width
            };
            float *out = row_of(rows.result, image, channel, i);
            for (const Tile &tile : rows.tiles) {
                if (rows.result.width > 64) fetch_ahead(out, height, x, tile);
                runs_of(height, tile.runs, std::make_integer_sequence<int, MOST_ROWS * (MOST_RUNS - 1)>())(
                    out, rows.result.row, x, tile, first, stop, rows.start_of(channel)
                );
            }
            i += height;
        }
    }

  private:
    // What the next rows need: the strides through wide maps are too many for the processor to foresee.
    void fetch_ahead(float *out, int64_t height, const Lines &x, const Tile &tile) const {
        constexpr int64_t LINE = 64 / sizeof(float);
        for (int64_t r = height; r < 2 * height; ++r)
            for (int64_t j = tile.column; j < tile.column + tile.runs * RUN; j += LINE) {
                __builtin_prefetch(x.pixels + rows.left + (r + x.height - 1) * x.row + j);
                __builtin_prefetch(out + r * rows.result.row + j, 1);
            }
    }

    const Rows &rows;
    // Scratch rows lie in a line: the zeros after one are those before the next.
    const int64_t width, margin, stride, size;
    Buffer scratch;
};

// The same for kernels that roll, on maps of type T.
template <typename T>
class ConvolveStrips {
  public:
    explicit ConvolveStrips(const Rows &rows)
        : rows(rows), size(rows.kernel.width), vectors(divide_up(rows.result.width, LANES)),
          strips(divide_up(vectors, most_rolled(size))),
          // Pixels begin where a vector does, at the last column at most, and may be written as a whole vector.
          scratch_row(rounded_up(most_rolled(size) * LANES + size - 1) + LANES), scratch(2 * scratch_row / LANES) {}

    void operator()(int64_t task) {
        const auto [image, channel, row, end] = rows.place_of(task);
        // The first and the last of the rows of pixels that the first row of results meets, on the map or beside it.
        const int64_t above = row - rows.top, below = above + size - 1;
        const int64_t first = std::clamp<int64_t>(above, 0, rows.source.height);
        const int64_t stop = std::clamp<int64_t>(below + end - row, first, rows.source.height);
        const int64_t origin = first < stop ? std::min(first, below) : below;
        for (int64_t n = 0, vector = 0; n < strips; ++n) {
            const int64_t some = (vectors - vector) / (strips - n), column = vector * LANES;
            const int64_t last = std::min((some - 1) * LANES, rows.result.width - column - LANES);
            const int64_t from = column - rows.left, width = last + LANES + size - 1;
            const int64_t left = std::clamp<int64_t>(from, 0, rows.source.width);
            const int64_t right = std::clamp<int64_t>(from + width, left, rows.source.width);
            std::fill_n(static_cast<float *>(scratch), 2 * scratch_row, 0.f);
            const Strip<T> strip{
                row_of<T>(rows.source, image, channel, origin) + left,
                rows.source.row,
                right - left,
                first - origin,
                (left < right ? stop : first) - origin,  // a strip that meets no pixels has no rows either
                mask_of(0, right - left),
                row_of<T>(rows.result, image, channel, row) + column,
                rows.result.row,
                last,
                below - origin,
                below - origin + end - row,
                rows.taps_of(channel),
                rows.start_of(channel),
                scratch + (rounded_up(rows.left) - rows.left) % LANES,
                scratch_row,
                left - from
            };
            roll_of<T>(size, some)(strip);
            vector += some;
        }
    }

  private:
    const Rows &rows;
    const int64_t size, vectors, strips, scratch_row;
    Buffer scratch;
};

// Each split takes its share of the images, and gives kernels (channels, kh, kw), which `sums` is for.
struct Gradients {
    const Map &x;
    const Gradient *sums;
    std::vector<Gradient> gradients;  // those of the splits, or the same if there is one
    int64_t images, channels, splits, band, pixels;

    int64_t count() const { return gradients.size(); }
    int64_t blocks() const { return blocks_of(channels); }
};

class Differentiate {
  public:
    explicit Differentiate(const Gradients &job)
        : job(job), kernel(job.band * job.gradients[0].out_grad.width), lattice(job.pixels), source(job.pixels) {
        for (const Gradient &gradient : job.gradients) taps.emplace_back(area(gradient.taps));
    }

    void operator()(int64_t task) {
        const Block block = block_of(task % job.blocks(), job.channels);
        const int64_t split = task / job.blocks();
        for (int64_t n = 0; n < job.count(); ++n) fill(dense(job.gradients[n].taps, taps[n]), Lanes{});
        const int64_t stop = (split + 1) * job.images / job.splits;
        for (int64_t image = split * job.images / job.splits; image < stop; ++image)
            for (int64_t row = 0; row < job.gradients[0].out_grad.height; row += job.band) {
                source.forget();
                for (int64_t n = 0; n < job.count(); ++n) add(n, image, row, block);
            }
        for (int64_t n = 0; n < job.count(); ++n)
            write(job.gradients[n].taps, split, block, dense(job.gradients[n].taps, taps[n]));
    }

  private:
    void add(int64_t n, int64_t image, int64_t row, const Block &block) {
        const Gradient &gradient = job.gradients[n];
        const int64_t stop = std::min(row + job.band, gradient.out_grad.height);
        const Band band =
            band_of(job.x, gradient.out_grad, gradient.vertical, gradient.taps.height, row, stop, false);
        const bool columns = along_columns(gradient.taps);
        const Grid x = source.get(band.source, image, block, columns), grad = dense(band.result, kernel);
        read(band.result, image, block, grad);
        // Output and kernel change places, and so do stride and dilation.
        auto exchanged = [](const Axis &axis) { return Axis{axis.tap, axis.output, axis.padding}; };
        correlate_along(
            columns, false, dense(gradient.taps, taps[n]), x, grad, exchanged(band.vertical),
            exchanged(gradient.horizontal), lattice, Start{true, Lanes{}}
        );
    }

    const Gradients &job;
    Buffer kernel, lattice;
    Source source;
    std::vector<Buffer> taps;
};

// The gradient of a single small kernel with unit steps on contiguous maps, along rows.
class DifferentiateRows {
  public:
    static bool suit(const Gradients &job) {
        const Gradient &gradient = job.gradients[0];
        const Map &grad = gradient.out_grad, &taps = gradient.taps;
        return MASKS && job.count() == 1 && has_unit_steps(gradient.vertical, gradient.horizontal) && has_rows(job.x) &&
               has_rows(grad) && grad.width >= LEAST_WIDTH && std::max(taps.width, taps.height) <= MOST_TAPS;
    }

    explicit DifferentiateRows(const Gradients &job)
        : job(job), grad(job.gradients[0].out_grad), kernel(job.gradients[0].taps),
          top(job.gradients[0].vertical.padding), left(job.gradients[0].horizontal.padding),
          vectors(divide_up(grad.width, LANES)), buffer(area(kernel)), sums(dense(kernel, buffer)) {
        for (int64_t v = 0; v < vectors; ++v) {
            const int64_t stop = grad.width - v * LANES;
            grad_masks.push_back(mask_of(0, stop));
            for (int64_t b = 0; b < kernel.width; ++b) {
                const int64_t column = v * LANES + b - left;
                pixel_masks.push_back(mask_of(-column, std::min(stop, job.x.width - column)));
            }
        }
    }

    void operator()(int64_t task) {
        const int64_t channel = task % job.channels, split = task / job.channels;
        fill(sums, Lanes{});
        const int64_t stop = (split + 1) * job.images / job.splits;
        for (int64_t image = split * job.images / job.splits; image < stop; ++image) add(image, channel);
        for (int64_t a = 0; a < kernel.height; ++a)
            for (int64_t b = 0; b < kernel.width; ++b)
                row_of(kernel, split, channel, a)[b * kernel.column] = total(*lanes(sums.at(a, b)));
    }

  private:
    void add(int64_t image, int64_t channel) {
        const auto taps_of = [&](int64_t row) {  // rows of taps that meet this row of pixels
            return std::pair(
                std::max<int64_t>(0, row + top - grad.height + 1), std::min<int64_t>(kernel.height, row + top + 1)
            );
        };
        for (int64_t row = 0, next; row < job.x.height; row = next) {
            const auto taps = taps_of(row);
            for (next = row + 1; next < job.x.height && taps_of(next) == taps;) ++next;
            if (taps.first >= taps.second) continue;
            const RowPair at{
                row_of(job.x, image, channel, row) - left, row_of(grad, image, channel, row + top - taps.first),
                job.x.row, grad.row, job.x.channel, grad.channel, vectors, kernel.width, grad_masks.data(),
                pixel_masks.data()
            };
            meet_rows_of(
                taps.second - taps.first, kernel.width, std::make_integer_sequence<int, MOST_TAPS * MOST_TAPS>()
            )(sums.at(taps.first, 0), at, next - row);
        }
    }

    const Gradients &job;
    const Map &grad, &kernel;
    const int64_t top, left, vectors;
    const Buffer buffer;
    const Grid sums;
    std::vector<Mask> grad_masks, pixel_masks;
};

// Add up what the splits gave for a channel.
class AddSplits {
  public:
    explicit AddSplits(const Gradients &job) : job(job) {}

    void operator()(int64_t channel) {
        for (int64_t n = 0; n < job.count(); ++n) {
            const Map &parts = job.gradients[n].taps, &taps = job.sums[n].taps;
            for (int64_t a = 0; a < taps.height; ++a)
                for (int64_t b = 0; b < taps.width; ++b) {
                    float sum = 0;
                    for (int64_t split = 0; split < job.splits; ++split) sum += row_of(parts, split, channel, a)[b];
                    row_of(taps, 0, channel, a)[b * taps.column] = sum;
                }
        }
    }

  private:
    const Gradients &job;
};

// Take the next structure of some that lie one after the other.
template <class Structure>
Structure unpack(const int64_t *&numbers) {
    static_assert(sizeof(Structure) % sizeof *numbers == 0, "structures are made of numbers");
    Structure made;
    std::memcpy(&made, numbers, sizeof made);
    numbers += sizeof made / sizeof *numbers;
    return made;
}

}  // namespace

extern "C" {

// What is computed comes in two parts: numbers that hold for all tensors of the same shapes and strides, a head and the
// structures above without their addresses, and the addresses of the tensors. Both functions return 0, or 1 if there is
// too little memory.

// For each branch the addresses of source and kernel, then for each result those of map and bias. Branches of the same
// result follow each other. Transposed, they are gradients with respect to the input.
int sw_mm_convolve(const int64_t *numbers, char *const *addresses, Parallel parallel, int64_t threads) try {
    const auto head = unpack<ConvolutionsHead>(numbers);
    std::vector<Branch> branches;
    for (int64_t n = 0; n < head.branches; ++n) {
        branches.push_back(unpack<Branch>(numbers));
        branches[n].source.data = *addresses++;
        branches[n].kernel.data = *addresses++;
    }
    std::vector<Result> results;
    for (int64_t n = 0; n < head.results; ++n) {
        results.push_back({unpack<Map>(numbers), nullptr});
        results[n].map.data = *addresses++;
        results[n].bias = reinterpret_cast<const float *>(*addresses++);
    }
    Convolutions job{
        branches.data(), results.data(), head.branches, head.images, head.channels, head.transposed != 0,
        results[0].map.height, 0, {}
    };
    for (const Branch &branch : branches) {
        const Map &result = results[branch.result].map;
        job.band = std::min(
            job.band, rows_of_band(branch.source, result, branch.vertical, branch.kernel.height, job.transposed)
        );
    }
    if (Rows::suit(job)) {
        const Rows rows(job);
        if (rows.rolls) {
            const int64_t height = results[0].map.height;
            job.band = std::max(job.band, divide_up(height, std::max<int64_t>(1, height / LEAST_ROLLED)));
        }
        const int64_t tasks = head.images * head.channels * job.bands();
        const auto roll_down = [&](auto number) {
            return run<ConvolveStrips<decltype(number)>>(rows, tasks, parallel, threads);
        };
        const bool done = run<PackRows>(rows, head.channels, parallel, threads) &&
                          (rows.rolls ? with_type(rows.result.type, roll_down)
                                      : run<ConvolveRows>(rows, tasks, parallel, threads));
        return done ? 0 : 1;
    }
    for (const Branch &branch : branches) {
        const int64_t rows = reach(branch.vertical, branch.kernel.height, job.band, job.transposed);
        job.pixels = std::max(job.pixels, std::min(rows, branch.source.height) * branch.source.width);
        job.kernels.emplace_back(job.blocks() * area(branch.kernel));
    }
    const bool done = run<Pack>(job, job.blocks(), parallel, threads) &&
                      run<Convolve>(job, job.blocks() * job.bands() * head.images, parallel, threads);
    return done ? 0 : 1;
} catch (const std::bad_alloc &) {
    return 1;
}

// The address of the map, then for each gradient those of the output's gradient and of the result.
int sw_mm_weight_grads(const int64_t *numbers, char *const *addresses, Parallel parallel, int64_t threads) try {
    const auto head = unpack<GradientsHead>(numbers);
    const int64_t channels = head.channels, splits = head.splits;
    Map x = unpack<Map>(numbers);
    x.data = *addresses++;
    std::vector<Gradient> all;
    for (int64_t n = 0; n < head.gradients; ++n) {
        all.push_back(unpack<Gradient>(numbers));
        all[n].out_grad.data = *addresses++;
        all[n].taps.data = *addresses++;
    }
    Gradients job{x, all.data(), all, head.images, channels, splits, all[0].out_grad.height, 0};
    for (const Gradient &gradient : job.gradients)
        job.band =
            std::min(job.band, rows_of_band(x, gradient.out_grad, gradient.vertical, gradient.taps.height, false));
    for (const Gradient &gradient : job.gradients) {
        const int64_t rows = reach(gradient.vertical, gradient.taps.height, job.band, false);
        job.pixels = std::max(job.pixels, std::min(rows, x.height) * x.width);
    }
    std::vector<Buffer> parts;
    if (splits > 1)
        for (Gradient &gradient : job.gradients) {
            const int64_t taps = area(gradient.taps);
            parts.emplace_back(divide_up(splits * channels * taps, LANES));
            gradient.taps = {
                reinterpret_cast<char *>(static_cast<float *>(parts.back())), FLOAT32, channels * taps, taps,
                gradient.taps.width, 1, gradient.taps.height, gradient.taps.width
            };
        }
    const bool done = DifferentiateRows::suit(job)
                          ? run<DifferentiateRows>(job, channels * splits, parallel, threads)
                          : run<Differentiate>(job, job.blocks() * splits, parallel, threads);
    return done && (splits == 1 || run<AddSplits>(job, channels, parallel, threads)) ? 0 : 1;
} catch (const std::bad_alloc &) {
    return 1;
}
}
