// One layer of a chain: a file that answers for itself, and says where it defers to its parent.
//
// A layer is opened and checked by its format's Open function, is immutable afterwards and safe for
// concurrent use. It never writes. Findings and properties go into a LayerInfo of the caller's,
// which keeps what was learnt even when Open fails.
//
// A layer knows nothing of its parent's bytes: the chain (disk.cc) asks the next layer for what a
// run of kind kParent covers, because layers may differ in block size and in length.
#ifndef FIRN_DISK_LAYER_H_
#define FIRN_DISK_LAYER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn {

struct LayerRun {
  enum class Kind : uint8_t { kData, kZero, kParent };
  uint64_t offset = 0;  // in the virtual disk
  uint64_t length = 0;
  Kind kind = Kind::kZero;
  uint64_t source_offset = 0;  // in the layer's file; kData only
};

// Appends `run`, joined to the last one where it continues it.
void AppendRun(const LayerRun& run, std::vector<LayerRun>* runs);

// Two handles of one file: metadata goes through the kernel's cache, payload past it.
struct LayerFiles {
  std::unique_ptr<File> buffered;
  std::unique_ptr<File> direct;  // null where there is none
  uint64_t bytes = 0;
  FileIdentity identity;
};

// kSourceChanged if the name came to mean another file between the two opens.
Result<LayerFiles> OpenLayerFiles(FileSystem& file_system, const std::string& path, bool direct,
                                  bool no_follow);

// What a differencing layer says of its parent.
struct ParentReference {
  struct Location {
    std::string key;   // as the format names it
    std::string path;  // UTF-8, as found; attacker-controlled
    bool relative = false;
  };
  std::vector<Location> locations;  // in the order to look them up
  std::vector<Guid> linkages;       // the parent's linkage id is one of these
};

class Layer {
 public:
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const std::string& path() const { return files_.buffered->path(); }
  const DiskIdentity& identity() const { return identity_; }
  uint64_t size() const { return identity_.size; }
  const SourceFile& source() const { return source_; }
  const FileIdentity& file_identity() const { return files_.identity; }
  // By which children name it: DataWriteGuid (VHDX), footer UUID (VHD).
  const Guid& linkage_id() const { return linkage_id_; }
  // As the layer's format writes such ids.
  virtual std::string LinkageToString(const Guid& id) const { return GuidToString(id); }
  // Null unless the layer is differencing.
  const ParentReference* parent() const { return parent_ ? &*parent_ : nullptr; }

  // Appends the runs of [offset, offset + length), in order and without gaps. REQUIRES: the range
  // lies inside the layer's disk.
  virtual Status Map(uint64_t offset, uint64_t length, std::vector<LayerRun>* runs) const = 0;

  // The first byte at or after `offset` for which this layer itself may hold data, or size().
  virtual Result<uint64_t> NextData(uint64_t offset) const = 0;

  // The first byte at or after `offset` that this layer does not itself define as zero, or size().
  // Whoever walks a chain needs it to skip what a layer hides of its parents.
  virtual Result<uint64_t> NextNotZero(uint64_t offset) const = 0;

  // kSourceChanged if the file was written to since it was opened.
  virtual Status CheckUnchanged() const = 0;

 protected:
  Layer(LayerFiles files, const DiskIdentity& identity, const Guid& linkage_id,
        std::optional<ParentReference> parent)
      : files_(std::move(files)),
        identity_(identity),
        linkage_id_(linkage_id),
        parent_(std::move(parent)),
        source_{files_.buffered.get(), files_.direct.get()} {}

  File& file() const { return *files_.buffered; }
  uint64_t file_bytes() const { return files_.bytes; }
  // kSourceChanged if the file's size is not what it was.
  Status CheckSizeUnchanged() const;

 private:
  const LayerFiles files_;
  const DiskIdentity identity_;
  const Guid linkage_id_;
  const std::optional<ParentReference> parent_;
  const SourceFile source_;
};

// --- Findings ---

void AddFinding(LayerInfo* info, DiskFinding::Severity severity, const char* code,
                std::string message, std::optional<uint64_t> offset = std::nullopt);
void Warn(LayerInfo* info, const char* code, std::string message,
          std::optional<uint64_t> offset = std::nullopt);

// Records an error finding and returns it as a Status at the layer's path.
Status Refuse(LayerInfo* info, Code code, const char* finding, std::string message,
              uint64_t offset);
// As Refuse, with kDiskInvalid.
Status Invalid(LayerInfo* info, const char* finding, std::string message, uint64_t offset);
// As Refuse, with kDiskTruncated and data loss.
Status Truncated(LayerInfo* info, const char* finding, std::string message, uint64_t offset);

// `text` with everything but printable ASCII (and, if `utf8`, bytes above it) replaced by '?', for
// messages about hostile strings.
std::string Printable(std::string_view text, bool utf8 = false);

}  // namespace firn

#endif  // FIRN_DISK_LAYER_H_
