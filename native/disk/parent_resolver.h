// Where a differencing layer's parent may be.
//
// A parent's path stands in the child, and whoever made the child chose it: it may point at any
// file of the host, at a device, or at a server that wants to see the host's credentials. So a path
// is only a hint. A candidate is an existing regular file that lies, after its links are resolved,
// inside the child's own folder or a folder that the user allowed; no network or device path is
// ever opened; and the chain accepts a candidate only if its linkage matches.
//
// A path is tried as it stands where that makes sense on this platform, and then by its file name
// alone inside the allowed folders: a child that was copied here from a Windows host names a drive
// that does not exist here.
#ifndef FIRN_DISK_PARENT_RESOLVER_H_
#define FIRN_DISK_PARENT_RESOLVER_H_

#include <string>
#include <vector>

#include "core/status.h"
#include "disk/layer.h"
#include "io/file.h"

namespace firn {

class ParentResolver {
 public:
  // `file_system` must outlive the resolver. Folders that do not exist are kept for messages and
  // otherwise ignored.
  ParentResolver(FileSystem& file_system, const std::vector<std::string>& parent_folders);

  struct Search {
    std::vector<std::string>
        candidates;     // absolute, links resolved, each once, in the order to try
    std::string tried;  // what was looked for and where, for people
  };

  // Candidates for the parent of the layer at `child_path`. The child itself may be among them.
  Result<Search> Find(const std::string& child_path, const ParentReference& reference) const;

 private:
  struct Pass;

  void TryPath(const std::string& path, Pass* pass) const;
  void TryRelative(const std::vector<std::string>& components, Pass* pass) const;
  void TryName(const std::string& folder, const std::string& name, Pass* pass) const;

  FileSystem& file_system_;
  std::vector<std::string> folders_;  // real paths
  std::vector<std::string> missing_folders_;
};

// --- Parts, for tests ---

// A path from a locator, taken apart.
struct ParsedParentPath {
  enum class Kind : uint8_t {
    kRelative,  // "..\base\parent.vhdx", "parent.vhdx"
    kAbsolute,  // "C:\vm\parent.vhdx", "\\?\Volume{...}\parent.vhdx", "/vm/parent.vhdx"
    kNetwork,   // "\\server\share\parent.vhdx", "\\?\UNC\..."
    kRefused,   // devices, control characters, no file name
  };
  Kind kind = Kind::kRefused;
  std::vector<std::string> components;  // of the path below its root, with "." left out
};
ParsedParentPath ParseParentPath(const std::string& path);

// Whether `path` is `folder` or lies below it; both absolute with links resolved.
bool LiesInside(const std::string& path, const std::string& folder);

}  // namespace firn

#endif  // FIRN_DISK_PARENT_RESOLVER_H_
