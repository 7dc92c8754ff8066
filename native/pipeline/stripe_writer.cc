#include "pipeline/stripe_writer.h"

namespace firn {

StripeWriter::StripeWriter(PackWriter* packs, WorkerIo* io, StageClock* clock,
                           const std::vector<std::span<uint8_t>>& data_buffers,
                           const std::vector<std::span<uint8_t>>& map_buffers)
    : packs_(packs), io_(io), clock_(clock) {
  for (auto memory : data_buffers) lanes_[0].buffers.emplace_back(memory);
  for (auto memory : map_buffers) lanes_[1].buffers.emplace_back(memory);
}

Result<Stripe*> StripeWriter::Reserve(PackClass pack_class, uint32_t record_bytes_max) {
  Lane& own = lane(pack_class);
  Buffer* buffer = &own.buffers[own.current];
  if (!buffer->placement && buffer->stripe.HasRoomFor(record_bytes_max)) return &buffer->stripe;
  if (!buffer->placement) {
    FIRN_RETURN_IF_ERROR(StartWrite(pack_class, buffer));
    own.current = (own.current + 1) % own.buffers.size();
    buffer = &own.buffers[own.current];
  }
  FIRN_RETURN_IF_ERROR(FinishWrite(buffer));
  return &buffer->stripe;
}

Status StripeWriter::StartWrite(PackClass pack_class, Buffer* buffer) {
  FIRN_ASSIGN_OR_RETURN(buffer->placement, packs_->Place(pack_class, &buffer->stripe));
  return io_->Write(buffer->placement->file, buffer->placement->offset, buffer->placement->bytes,
                    &buffer->io);
}

// Waits if need be, and makes the buffer ready to be filled again.
Status StripeWriter::FinishWrite(Buffer* buffer) {
  if (!buffer->placement) return Status::Ok();
  FIRN_RETURN_IF_ERROR(io_->Wait(&buffer->io, Stage::kBlocked));
  clock_->Skip();
  FIRN_RETURN_IF_ERROR(packs_->Written(*buffer->placement));
  clock_->Charge(Stage::kBlocked);
  buffer->placement.reset();
  buffer->stripe.Clear();
  return Status::Ok();
}

Status StripeWriter::Collect() {
  FIRN_RETURN_IF_ERROR(io_->Poll());
  for (Lane& own : lanes_) {
    for (Buffer& buffer : own.buffers) {
      if (buffer.placement && buffer.io.done()) FIRN_RETURN_IF_ERROR(FinishWrite(&buffer));
    }
  }
  return Status::Ok();
}

Status StripeWriter::Flush() {
  for (PackClass pack_class : {PackClass::kData, PackClass::kMap}) {
    Lane& own = lane(pack_class);
    Buffer& current = own.buffers[own.current];
    if (!current.placement && !current.stripe.empty()) {
      FIRN_RETURN_IF_ERROR(StartWrite(pack_class, &current));
    }
  }
  for (Lane& own : lanes_) {
    for (Buffer& buffer : own.buffers) FIRN_RETURN_IF_ERROR(FinishWrite(&buffer));
  }
  return Status::Ok();
}

}  // namespace firn
