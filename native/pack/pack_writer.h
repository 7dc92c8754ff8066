// The packs that one run writes.
//
// Workers fill stripes of their own, ask for a place, write the stripe there with their own queue,
// and report it written; nothing is copied and the lock is held only to hand out places. A pack
// that is full and wholly written is given its footer, made durable, and renamed to its final name
// by the worker that reported its last stripe; then its table goes to the receiver. Several workers
// share one open pack of each class, so that a small run makes small packs' worth of files, not one
// for each core.
//
// PackWriter is thread-safe; a Stripe belongs to one worker.
#ifndef FIRN_PACK_PACK_WRITER_H_
#define FIRN_PACK_PACK_WRITER_H_

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "codec/record.h"
#include "core/status.h"
#include "io/file.h"
#include "pack/pack_format.h"

namespace firn {

// Records on their way into a pack, in memory that the worker owns.
class Stripe {
 public:
  Stripe() = default;
  // REQUIRES: memory is aligned to kPackAlignment and a multiple of it.
  explicit Stripe(std::span<uint8_t> memory) : memory_(memory) {}

  bool empty() const { return records_.empty(); }
  bool HasRoomFor(uint32_t record_bytes_max) const {
    return memory_.size() - used_ >= record_bytes_max;
  }
  // Where the next record is to be encoded.
  uint8_t* tail() { return memory_.data() + used_; }
  // The record that was encoded at tail().
  void Append(const RecordHeader& header);
  void Clear();

 private:
  friend class PackWriter;
  std::span<uint8_t> memory_;
  size_t used_ = kStripeHeaderBytes;
  // What the stripe's hash is made of: room for its own header, and its records' headers.
  std::vector<uint8_t> headers_ = std::vector<uint8_t>(kStripeHeaderBytes);
  std::vector<PackRecord> records_;  // offsets within the stripe
};

class PackWriter {
 public:
  // Called for each finished pack, by one thread at a time.
  using Receiver = std::function<Status(const PackName& name, PackTable table)>;

  // One stripe's place. Opaque but for what the caller needs to write it.
  struct Placement {
    File* file = nullptr;
    uint64_t offset = 0;
    std::span<const uint8_t> bytes;
    void* pack = nullptr;
  };

  // `root` is the repository's folder. `pack_bytes` is the size that packs aim at.
  PackWriter(FileSystem& fs, std::string root, const RunId& run, uint32_t attempt, bool direct,
             uint64_t pack_bytes, Receiver receiver);
  // What the stripes of a write-only key's run say of it. Before anything is placed.
  void set_public_tail(const std::array<uint8_t, 16>& tail) { public_tail_ = tail; }
  // Removes what was not finished.
  ~PackWriter();

  // Completes the stripe (header, padding, hash) and reserves its place. The stripe's memory must
  // stay until Written.
  Result<Placement> Place(PackClass pack_class, Stripe* stripe);
  // The placement's bytes are in the file.
  Status Written(const Placement& placement);
  // Finishes the open packs and makes all names durable. REQUIRES: everything placed is written.
  Status Close();
  // Makes the names of finished packs durable.
  Status SyncNames();

 private:
  struct OpenPack;
  Status Open(PackClass pack_class, std::unique_ptr<OpenPack>* pack);
  Status Finish(OpenPack* pack);
  std::string folder() const;

  FileSystem& fs_;
  const std::string root_;
  const RunId run_;
  const uint32_t attempt_;
  const bool direct_;
  const uint64_t pack_bytes_;
  const Receiver receiver_;
  std::array<uint8_t, 16> public_tail_{};

  std::mutex mutex_;
  uint32_t next_sequence_ = 0;
  bool folder_made_ = false;
  std::array<OpenPack*, 3> current_{};            // by PackClass
  std::vector<std::unique_ptr<OpenPack>> packs_;  // not finished yet
  std::mutex receiver_mutex_;
};

}  // namespace firn

#endif  // FIRN_PACK_PACK_WRITER_H_
