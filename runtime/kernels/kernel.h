// The innermost kernel, written once for every instruction set: sums of a few rows of x with a few blocks of outputs.
//
// One output per lane. For every group of four columns, the four values of a row of x stand in a register (in every 128
// bits of it), and two-bit positions select from them within the lane: a 2:4 weight costs a shuffle and a multiply-add
// where a dense one costs two multiply-adds. Weights are widened to fp32 once for all rows; nothing is rounded but by the
// multiply-adds themselves.
//
// An instruction set defines VLMC_TARGET (its function attribute), VLMC_UNROLL and a struct `Vectors`, and includes this
// file inside a namespace of its own: functions of one target can be inlined only into functions of the same.

constexpr size_t kAhead = 1024;  // bytes of values that one row asks memory for before they are needed

template <Type T, bool Dense, int R, int B>
struct Sums {
  static constexpr int P = Vectors::at_once(Dense, R);        // vectors of a block that are computed at once
  static constexpr int N = B * P;                             // vectors of outputs
  static constexpr int C = R * N <= Vectors::chains ? 2 : 1;  // independent sums: a multiply-add waits for the one before
  static constexpr size_t pair_bytes = size_of(T) * kLanes * 2;
  static constexpr size_t group_bytes = pair_bytes * (Dense ? 2 : 1);
  using F = typename Vectors::F;
  using I = typename Vectors::I;

  VLMC_TARGET static void run(const Segment& s, float* out) {
    parts<0>(s, out);
  }

 private:
  // With many rows the registers hold the sums of a part of a block only: the parts are computed one after the other.
  template <int From>
  VLMC_INLINE void parts(const Segment& s, float* out) {
    if constexpr (From < kLanes / Vectors::lanes) {
      part<From>(s, out);
      parts<From + P>(s, out);
    }
  }

  template <int From>
  VLMC_INLINE void part(const Segment& s, float* out) {
    F total[C][R][N];
    clear(total);
    if (T == kInt8)
      spans<From>(s, total);
    else
      chunks<From>(s, 0, s.chunks, total);
    VLMC_UNROLL for (int r = 0; r < R; r++)
      VLMC_UNROLL for (int n = 0; n < N; n++) {
        const F sum = C == 2 ? Vectors::add(total[0][r][n], total[C - 1][r][n]) : total[0][r][n];
        Vectors::store(out + (r * B + n / P) * kLanes + (From + n % P) * Vectors::lanes, sum);
      }
  }

  VLMC_INLINE void clear(F (&sums)[C][R][N]) {
    VLMC_UNROLL for (int c = 0; c < C; c++)
      VLMC_UNROLL for (int r = 0; r < R; r++)
        VLMC_UNROLL for (int n = 0; n < N; n++) sums[c][r][n] = Vectors::zero();
  }

  // Adds scale * (sum over the columns that share it).
  template <int From>
  VLMC_INLINE void spans(const Segment& s, F (&total)[C][R][N]) {
    int64_t span = 0;
    for (int64_t from = 0; from < s.chunks; from += s.span_chunks, span++) {
      const int64_t to = from + s.span_chunks;
      F part[C][R][N];
      clear(part);
      chunks<From>(s, from, to < s.chunks ? to : s.chunks, part);
      VLMC_UNROLL for (int n = 0; n < N; n++) {
        const F scale = Vectors::load(s.scales + n / P * s.scales_stride + span * kLanes + (From + n % P) * Vectors::lanes);
        VLMC_UNROLL for (int c = 0; c < C; c++)
          VLMC_UNROLL for (int r = 0; r < R; r++) total[c][r][n] = Vectors::fma(part[c][r][n], scale, total[c][r][n]);
      }
    }
  }

  template <int From>
  VLMC_INLINE void chunks(const Segment& s, int64_t from, int64_t to, F (&sums)[C][R][N]) {
    const float* x = s.x + from * kChunk * R;
    for (int64_t chunk = from; chunk < to; chunk++) {
      const char* values = s.values + chunk * group_bytes * kGroups;
      I positions[N];
      if (!Dense)
        VLMC_UNROLL for (int n = 0; n < N; n++)
          positions[n] = Vectors::positions(s.positions + n / P * s.positions_stride + chunk * kLanes + (From + n % P) * Vectors::lanes);
      if (R == 1 && !Dense) ask(s.positions + (chunk + 1 + kAhead / (group_bytes * kGroups)) * kLanes, s.positions_stride);
      for (int g = 0; g < kGroups; g++, x += R * kGroup, values += group_bytes) {
        if (R == 1)
          for (size_t at = 0; at < group_bytes; at += kLine) ask(values + kAhead + at, s.values_stride);
        if (Dense) {
          dense_pair<From>(s, values, x, sums);
          dense_pair<From>(s, values + pair_bytes, x + 2, sums);
        } else {
          sparse_pair<From>(s, values, x, positions, sums);
        }
      }
    }
  }

  // Has a line of every block's stream fetched.
  template <class Element>
  VLMC_INLINE void ask(const Element* first, size_t stride) {
    VLMC_UNROLL for (int b = 0; b < B; b++) __builtin_prefetch(first + b * stride);
  }

  template <int From>
  VLMC_INLINE void sparse_pair(const Segment& s, const char* values, const float* x, I (&positions)[N], F (&sums)[C][R][N]) {
    F first[N], second[N];
    decltype(Vectors::control(positions[0])) at_first[N], at_second[N];
    VLMC_UNROLL for (int n = 0; n < N; n++) {
      Vectors::template pair<T>(values + n / P * s.values_stride, From + n % P, first[n], second[n]);
      at_first[n] = Vectors::control(positions[n]);
      at_second[n] = Vectors::control(Vectors::template right<2>(positions[n]));
      positions[n] = Vectors::template right<4>(positions[n]);
    }
    VLMC_UNROLL for (int r = 0; r < R; r++) {
      const auto four = Vectors::four(x + r * kGroup);
      VLMC_UNROLL for (int n = 0; n < N; n++) {
        sums[0][r][n] = Vectors::fma(first[n], Vectors::select(four, at_first[n]), sums[0][r][n]);
        sums[C - 1][r][n] = Vectors::fma(second[n], Vectors::select(four, at_second[n]), sums[C - 1][r][n]);
      }
    }
  }

  template <int From>
  VLMC_INLINE void dense_pair(const Segment& s, const char* values, const float* x, F (&sums)[C][R][N]) {
    F first[N], second[N];
    VLMC_UNROLL for (int n = 0; n < N; n++)
      Vectors::template pair<T>(values + n / P * s.values_stride, From + n % P, first[n], second[n]);
    VLMC_UNROLL for (int r = 0; r < R; r++) {
      const F x0 = Vectors::repeat(x + r * kGroup), x1 = Vectors::repeat(x + r * kGroup + 1);
      VLMC_UNROLL for (int n = 0; n < N; n++) {
        sums[0][r][n] = Vectors::fma(first[n], x0, sums[0][r][n]);
        sums[C - 1][r][n] = Vectors::fma(second[n], x1, sums[C - 1][r][n]);
      }
    }
  }
};

// Several blocks are several streams of memory, which the hardware reads ahead side by side: the fewer rows, the more.
template <Type T, bool Dense, int R>
Kernel of_blocks(int blocks) {
  constexpr int most = Vectors::blocks(R);
  if constexpr (most >= 6)
    if (blocks >= 6) return &Sums<T, Dense, R, 6>::run;
  if constexpr (most >= 4)
    if (blocks >= 4) return &Sums<T, Dense, R, 4>::run;
  if constexpr (most >= 2)
    if (blocks >= 2) return &Sums<T, Dense, R, 2>::run;
  return &Sums<T, Dense, R, 1>::run;
}

template <Type T, bool Dense, int R = Vectors::rows>
Kernel of_rows(int rows, int blocks) {
  if constexpr (R == 0)
    return nullptr;
  else
    return rows == R ? of_blocks<T, Dense, R>(blocks) : of_rows<T, Dense, R - 1>(rows, blocks);
}

template <Type T>
Kernel of_type(bool dense, int rows, int blocks) {
  return dense ? of_rows<T, true>(rows, blocks) : of_rows<T, false>(rows, blocks);
}

static Kernel find(Type type, bool dense, int rows, int blocks) {
  switch (type) {
    case kFloat32: return of_type<kFloat32>(dense, rows, blocks);
    case kBfloat16: return of_type<kBfloat16>(dense, rows, blocks);
    case kFloat16: return of_type<kFloat16>(dense, rows, blocks);
    case kInt8: return of_type<kInt8>(dense, rows, blocks);
  }
  return nullptr;
}
