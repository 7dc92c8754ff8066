#include "pack/pack_writer.h"

#include <algorithm>
#include <cstring>

#include "io/aligned_buffer.h"

namespace firn {

struct PackWriter::OpenPack {
  PackName name;
  PackClass pack_class = PackClass::kData;
  std::string partial_path;
  std::unique_ptr<File> file;
  PackTable table;  // footer_offset is where the next stripe goes
  uint32_t stripes_in_flight = 0;
  bool full = false;  // takes no more stripes
};

void Stripe::Append(const RecordHeader& header) {
  records_.push_back({header.id, static_cast<uint32_t>(used_), header.stored_length,
                      header.raw_length, header.record_class, header.codec, header.flags});
  headers_.insert(headers_.end(), tail(), tail() + kRecordHeaderBytes);
  used_ += kRecordHeaderBytes + header.stored_length;
  assert(used_ <= memory_.size());
}

void Stripe::Clear() {
  used_ = kStripeHeaderBytes;
  headers_.resize(kStripeHeaderBytes);
  records_.clear();
}

PackWriter::PackWriter(FileSystem& fs, std::string root, const RunId& run, uint32_t attempt,
                       bool direct, uint64_t pack_bytes, Receiver receiver)
    : fs_(fs),
      root_(std::move(root)),
      run_(run),
      attempt_(attempt),
      direct_(direct),
      pack_bytes_(pack_bytes),
      receiver_(std::move(receiver)) {}

PackWriter::~PackWriter() {
  for (std::unique_ptr<OpenPack>& pack : packs_) {
    pack->file.reset();
    (void)fs_.Remove(pack->partial_path);  // best effort: a leftover .partial is ignored by readers
  }
}

std::string PackWriter::folder() const { return JoinPath(root_, "packs/" + ToHex(run_)); }

Status PackWriter::Open(PackClass pack_class, std::unique_ptr<OpenPack>* opened) {
  if (!folder_made_) {
    Status made = fs_.CreateDirectory(folder());
    if (!made.ok() && made.code() != Code::kExists) return made;
    folder_made_ = true;
  }
  auto pack = std::make_unique<OpenPack>();
  pack->name = {run_, attempt_, next_sequence_++};
  pack->pack_class = pack_class;
  pack->partial_path = JoinPath(root_, pack->name.RelativePath()) + ".partial";
  FIRN_ASSIGN_OR_RETURN(pack->file, fs_.Open(pack->partial_path,
                                             {.access = Access::kCreateAlways, .direct = direct_}));
  *opened = std::move(pack);
  return Status::Ok();
}

Result<PackWriter::Placement> PackWriter::Place(PackClass pack_class, Stripe* stripe) {
  const size_t length = RoundUp(stripe->used_, kPackAlignment);
  uint8_t* bytes = stripe->memory_.data();
  std::memset(bytes + stripe->used_, 0, length - stripe->used_);
  OpenPack* pack;
  uint64_t offset;
  size_t row;
  {
    std::lock_guard lock(mutex_);
    OpenPack*& current = current_[static_cast<size_t>(pack_class)];
    if (current == nullptr) {
      std::unique_ptr<OpenPack> opened;
      FIRN_RETURN_IF_ERROR(Open(pack_class, &opened));
      current = opened.get();
      packs_.push_back(std::move(opened));
    }
    pack = current;
    offset = pack->table.footer_offset;
    pack->table.footer_offset += length;
    ++pack->stripes_in_flight;
    for (PackRecord& record : stripe->records_) {
      record.offset += static_cast<uint32_t>(offset);
      pack->table.records.push_back(record);
    }
    row = pack->table.stripes.size();
    pack->table.stripes.push_back({static_cast<uint32_t>(offset), static_cast<uint32_t>(length)});
    if (pack->table.footer_offset + stripe->memory_.size() > pack_bytes_) {
      pack->full = true;
      current = nullptr;
    }
  }
  StripeHeader{pack->name, pack_class, static_cast<uint32_t>(offset), public_tail_}.Encode(bytes);
  std::copy_n(bytes, kStripeHeaderBytes, stripe->headers_.data());
  const Id hash = Blake3(stripe->headers_);
  {
    std::lock_guard lock(mutex_);
    pack->table.stripes[row].hash = hash;
  }
  return Placement{pack->file.get(), offset, {bytes, length}, pack};
}

Status PackWriter::Written(const Placement& placement) {
  auto* pack = static_cast<OpenPack*>(placement.pack);
  {
    std::lock_guard lock(mutex_);
    if (--pack->stripes_in_flight > 0 || !pack->full) return Status::Ok();
  }
  return Finish(pack);
}

// Footer, durability, name; REQUIRES: nobody else has a hand on the pack any more.
Status PackWriter::Finish(OpenPack* pack) {
  std::vector<uint8_t> footer = EncodePackFooter(&pack->table);
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer aligned, AlignedBuffer::Allocate(footer.size()));
  std::copy(footer.begin(), footer.end(), aligned.data());
  FIRN_RETURN_IF_ERROR(
      pack->file->WriteAt(pack->table.footer_offset, {aligned.data(), footer.size()}));
  FIRN_RETURN_IF_ERROR(pack->file->Sync());
  FIRN_RETURN_IF_ERROR(
      fs_.RenameNew(pack->partial_path, JoinPath(root_, pack->name.RelativePath())));
  std::unique_ptr<OpenPack> finished;
  {
    std::lock_guard lock(mutex_);
    auto place = std::find_if(packs_.begin(), packs_.end(),
                              [pack](const auto& open) { return open.get() == pack; });
    finished = std::move(*place);
    packs_.erase(place);
  }
  std::lock_guard lock(receiver_mutex_);
  return receiver_(finished->name, std::move(finished->table));
}

Status PackWriter::Close() {
  for (OpenPack*& current : current_) {
    if (current == nullptr) continue;
    assert(current->stripes_in_flight == 0);
    FIRN_RETURN_IF_ERROR(Finish(current));
    current = nullptr;
  }
  return SyncNames();
}

Status PackWriter::SyncNames() {
  if (!folder_made_) return Status::Ok();
  FIRN_RETURN_IF_ERROR(fs_.SyncDirectory(folder()));
  return fs_.SyncDirectory(JoinPath(root_, "packs"));
}

}  // namespace firn
