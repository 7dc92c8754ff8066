#include "io/core_files.h"

#include <sys/resource.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

namespace firn {

bool ForbidCoreFiles() {
#if defined(__linux__)
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
#else
  const rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  return setrlimit(RLIMIT_CORE, &none) == 0;
#endif
}

}  // namespace firn
