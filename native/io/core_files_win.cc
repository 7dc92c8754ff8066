#include "io/core_files.h"

namespace firn {

// What Windows Error Reporting keeps is the administrator's to say.
bool ForbidCoreFiles() { return false; }

}  // namespace firn
