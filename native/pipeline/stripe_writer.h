// The target side of a backup worker: stripes that are filled while others are being written.
//
// Belongs to one thread. Each class of pack has its own buffers; Reserve gives a stripe with room,
// and when the current one is full it is placed, its write started, and the next buffer taken,
// waiting for its write only when all are in flight.
#ifndef FIRN_PIPELINE_STRIPE_WRITER_H_
#define FIRN_PIPELINE_STRIPE_WRITER_H_

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "pack/pack_writer.h"
#include "pipeline/worker_io.h"

namespace firn {

class StripeWriter {
 public:
  // Each buffer is aligned to kPackAlignment and a multiple of it.
  StripeWriter(PackWriter* packs, WorkerIo* io, StageClock* clock,
               const std::vector<std::span<uint8_t>>& data_buffers,
               const std::vector<std::span<uint8_t>>& map_buffers);

  // A stripe with room for a record of up to `record_bytes_max`.
  // REQUIRES: that much fits into an empty buffer.
  Result<Stripe*> Reserve(PackClass pack_class, uint32_t record_bytes_max);

  // Reports writes that have completed, so that full packs are finished early.
  Status Collect();
  // Writes what is left and waits for all.
  Status Flush();

 private:
  struct Buffer {
    explicit Buffer(std::span<uint8_t> memory) : stripe(memory) {}
    Stripe stripe;
    IoGroup io;
    std::optional<PackWriter::Placement> placement;  // being written
  };
  struct Lane {
    std::vector<Buffer> buffers;
    size_t current = 0;
  };
  Lane& lane(PackClass pack_class) { return lanes_[pack_class == PackClass::kData ? 0 : 1]; }
  Status StartWrite(PackClass pack_class, Buffer* buffer);
  Status FinishWrite(Buffer* buffer);

  PackWriter* const packs_;
  WorkerIo* const io_;
  StageClock* const clock_;
  std::array<Lane, 2> lanes_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_STRIPE_WRITER_H_
