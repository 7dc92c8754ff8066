// How much work this thread has done so far: CPU time, which a neighbour on the same core does not
// lengthen.
#ifndef FIRN_BENCH_THREAD_CLOCK_H_
#define FIRN_BENCH_THREAD_CLOCK_H_

#include <cstdint>

namespace firn {

// Nanoseconds. On Windows, whose clock of a thread moves in steps of 15 ms, wall time.
uint64_t ThreadCpuNs();

}  // namespace firn

#endif  // FIRN_BENCH_THREAD_CLOCK_H_
