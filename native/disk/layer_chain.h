// Opens a chain of layers, from the child to the last parent, as far as that goes.
//
// For one thread. What was opened and what was learnt stay available after a failure, for
// inspection.
#ifndef FIRN_DISK_LAYER_CHAIN_H_
#define FIRN_DISK_LAYER_CHAIN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "disk/layer.h"
#include "disk/parent_resolver.h"
#include "io/file.h"

namespace firn {

class LayerChain {
 public:
  // Both must outlive the chain.
  LayerChain(FileSystem& file_system, const OpenDiskOptions& options)
      : file_system_(file_system),
        options_(options),
        resolver_(file_system, options.parent_folders) {}

  // Call once.
  Status Open(const std::string& path);

  // The child first. There may be one more info than layers, of the layer that failed.
  std::vector<LayerInfo>& infos() { return infos_; }
  std::vector<std::unique_ptr<Layer>>& layers() { return layers_; }

 private:
  // What became of a file that might have been the parent.
  struct Attempt {
    enum class Outcome : uint8_t {
      kOpened,
      kNotAParent,  // no regular file, or a layer that the search by name came upon
      kUnreadable,
      kMismatch,
      kDamaged,
    };
    Outcome outcome = Outcome::kOpened;
    Status status;
    LayerInfo info;
  };

  Status NoteFailure(Status status);
  Status OpenParent();
  Status OpenExplicitParent(const std::string& path);
  Status ReportProblem(Attempt attempt);
  Attempt TryParent(const std::string& path);
  Result<const Layer*> FindInChain(const std::string& path) const;
  static Status CheckIsParent(const Layer& child, const Layer& parent);

  FileSystem& file_system_;
  const OpenDiskOptions& options_;
  const ParentResolver resolver_;
  std::vector<LayerInfo> infos_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace firn

#endif  // FIRN_DISK_LAYER_CHAIN_H_
