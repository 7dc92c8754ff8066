// A virtual disk, opened read-only: a chain of layers that answers two questions, what exists and
// where it lies.
//
// Open resolves parents under a policy, replays dirty logs in memory, and checks every structure
// before it is used; it never writes to any layer. A Disk is safe for concurrent use from several
// threads. Offsets and lengths are bytes of the virtual disk.
//
// Map is the way of the data plane: it tells which bytes of which file make up a range, and the
// caller reads them as it likes (unbuffered, deeply queued). Read is for small things and for
// tests. Images are hostile: see vhdx_*.cc for what is refused.
#ifndef FIRN_DISK_DISK_H_
#define FIRN_DISK_DISK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "io/file.h"

namespace firn {

enum class DiskFormat : uint8_t { kRaw, kVhd, kVhdx };
enum class DiskKind : uint8_t { kFixed, kDynamic, kDifferencing };

const char* FormatName(DiskFormat format);  // "raw", "vhd", "vhdx"
const char* KindName(DiskKind kind);        // "fixed", "dynamic", "differencing"

// What makes a disk the same disk to its guest, beside its bytes.
struct DiskIdentity {
  DiskFormat format = DiskFormat::kRaw;
  DiskKind kind = DiskKind::kFixed;
  uint64_t size = 0;                    // virtual, bytes
  uint32_t block_size = 0;              // 0 for raw and fixed VHD
  uint32_t logical_sector_size = 512;   // 512 or 4096
  uint32_t physical_sector_size = 512;  // 512 or 4096
  Guid disk_id{};                       // SCSI page 83 id (VHDX), footer UUID (VHD), zero for raw
};

// Something that an inspection should say: "warning" reads correctly all the same, "error" does not
// open.
struct DiskFinding {
  enum class Severity : uint8_t { kInfo, kWarning, kError };
  Severity severity = Severity::kInfo;
  std::string code;     // stable, lower case with dashes: "log-dirty", "header-1-bad",
                        // "region-table-1-bad", "short-last-block"
  std::string message;  // for people
  std::optional<uint64_t> offset;
};

// The state of a VHDX log.
struct LogInfo {
  enum class State : uint8_t { kNone, kClean, kReplayed };
  State state = State::kNone;
  uint64_t entries = 0;  // replayed in memory
  uint64_t pages = 0;    // 4 KiB pages that the overlay holds
  uint64_t offset = 0;
  uint64_t length = 0;
};

// One file of the chain, as inspected. The child stands first.
struct LayerInfo {
  std::string path;
  DiskIdentity identity;
  uint64_t file_bytes = 0;
  std::string creator;          // printable ASCII of what the file says
  std::string data_write_guid;  // VHDX; the footer UUID for VHD
  std::string parent_linkage;   // what it says of its parent, "" if it has none
  std::vector<std::pair<std::string, std::string>> parent_locator;  // all keys as found
  LogInfo log;
  uint64_t blocks = 0;          // payload blocks of the virtual disk
  uint64_t blocks_full = 0;     // wholly present
  uint64_t blocks_partial = 0;  // sector bitmap decides
  uint64_t blocks_zero = 0;     // zero, undefined, unmapped
  std::vector<DiskFinding> findings;
};

// The files that a layer's payload is read from. `direct` is null where the platform or the file
// system has no unbuffered I/O, or where the caller asked for none.
struct SourceFile {
  File* buffered = nullptr;
  File* direct = nullptr;
};

// A run of a mapped range. Extents come in order and cover the range exactly.
struct Extent {
  uint64_t offset = 0;  // in the virtual disk
  uint64_t length = 0;
  const SourceFile* source = nullptr;  // null: reads as zero
  uint64_t source_offset = 0;
};

struct OpenDiskOptions {
  // Folders inside which parents may lie, besides the folder of the child itself. Links are
  // resolved before the check.
  std::vector<std::string> parent_folders;
  // Parents by explicit order, child's parent first; overrides what the locators say, still checked
  // by linkage.
  std::vector<std::string> parents;
  uint32_t max_depth = 256;  // layers
  bool direct = true;        // open payload handles unbuffered as well
  // Without it the name and the signature decide: .raw and .img are raw whatever they hold, as a
  // guest can write any signature into its disk; .vhd, .vhdx, .avhd and .avhdx must have one; other
  // names are what their signature says, else raw.
  std::optional<DiskFormat> format;
};

class Disk {
 public:
  virtual ~Disk() = default;

  static Result<std::unique_ptr<Disk>> Open(FileSystem& fs, const std::string& path,
                                            const OpenDiskOptions& options);

  virtual const DiskIdentity& identity() const = 0;
  uint64_t size() const { return identity().size; }
  virtual const std::vector<LayerInfo>& layers() const = 0;

  // Appends the extents of [offset, offset + length); neighbours that continue each other are
  // joined. REQUIRES: the range lies inside the disk.
  virtual Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const = 0;

  // The first byte at or after `offset` that may not be a hole, or size(). Costs what the
  // allocation tables cost, not what the disk's size does: a 64 TiB disk with one block answers at
  // once.
  virtual Result<uint64_t> NextPresent(uint64_t offset) const = 0;

  // Reads through the buffered handles. REQUIRES: the range lies inside the disk.
  Status Read(uint64_t offset, std::span<uint8_t> out) const;

  // kSourceChanged if a layer was written to since Open (its header, size or modification moved).
  virtual Status CheckUnchanged() const = 0;
};

// Opens as far as it can and tells what it found; fails only where the file itself can't be read.
// What keeps the disk from opening is `error`.
struct Inspection {
  std::vector<LayerInfo> layers;
  Status error;
};
Result<Inspection> InspectDisk(FileSystem& fs, const std::string& path,
                               const OpenDiskOptions& options);

}  // namespace firn

#endif  // FIRN_DISK_DISK_H_
