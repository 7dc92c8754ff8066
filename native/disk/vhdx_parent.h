// What ties a differencing VHDX that is being written to its parent: the locator, and the
// properties it must inherit.
//
// The parent is only read. Its DataWriteGuid is taken as it is after a replay of its log in memory,
// which does not change it.
#ifndef FIRN_DISK_VHDX_PARENT_H_
#define FIRN_DISK_VHDX_PARENT_H_

#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn {

struct VhdxParentLink {
  DiskIdentity identity;  // of the parent
  // Keys and values (UTF-8) of the parent locator, in the order Windows writes them.
  std::vector<std::pair<std::string, std::string>> locator;
};

// Reads the parent of an image that will lie at `child_path`. kParentNotFound if it is not there;
// kInvalidArgument if it is not a VHDX or is the very file that the child would replace; else what
// keeps the parent from opening. That a parent of the parent can't be found from here is no error:
// only the next layer is linked to.
Result<VhdxParentLink> LinkToVhdxParent(FileSystem& file_system, const std::string& child_path,
                                        const std::string& parent_path);

// ".\base.vhdx" or "..\dir\base.vhdx": the way from `folder` to `file`, both absolute with links
// resolved; "" if there is none, as between two Windows drives.
std::string RelativeWindowsPath(const std::string& folder, const std::string& file);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_PARENT_H_
