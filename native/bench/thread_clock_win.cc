#include "bench/thread_clock.h"
#include "pipeline/job_stats.h"

namespace firn {

uint64_t ThreadCpuNs() { return NowNs(); }

}  // namespace firn
