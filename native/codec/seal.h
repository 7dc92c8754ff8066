// Records sealed and opened: AES-256-GCM over the stored bytes, with the header as associated data.
// docs/repository-format.md section 12.
//
// Why no nonce is used twice with a key. A nonce is a counter that all threads of one writer share
// (NonceCounter), so it differs for each record that they seal. The key is derived from the run's
// id and the attempt. A run's id is 128 random bits (or half of a new public key), drawn by the
// process that runs it; one process alone writes under it, with one writer for each attempt: the
// names of packs, which are never used twice, are made of the same two numbers, and two writers
// with both equal would already overwrite each other's files. A record that is moved into another
// pack is opened and sealed anew under the mover's run. So (run, attempt, counter) never comes
// again, whatever was interrupted. What a crash cuts off is thrown away with its run's id.
//
// Sealers and openers belong to one thread each.
#ifndef FIRN_CODEC_SEAL_H_
#define FIRN_CODEC_SEAL_H_

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "codec/aead.h"
#include "codec/record.h"
#include "codec/seal_keys.h"

namespace firn {

using NonceCounter = std::atomic<uint64_t>;

class RecordSealer {
 public:
  // `counter` is the one of this writer, and outlives the sealer. kKeyRequired if `keys` can't seal
  // for it.
  static Result<std::unique_ptr<RecordSealer>> Create(const SealKeys& keys,
                                                      const RecordWriter& writer,
                                                      NonceCounter* counter);
  // Seals a whole record where it lies, with its header, which becomes `*header`. There is room for
  // Aes256Gcm::kTagBytes after it.
  Status Seal(RecordHeader* header, uint8_t* record);

 private:
  RecordSealer(std::unique_ptr<Aes256Gcm> cipher, NonceCounter* counter)
      : cipher_(std::move(cipher)), counter_(counter) {}

  const std::unique_ptr<Aes256Gcm> cipher_;
  NonceCounter* const counter_;
};

class RecordOpener {
 public:
  explicit RecordOpener(std::shared_ptr<const SealKeys> keys) : keys_(std::move(keys)) {}

  // The stored bytes of a sealed record as they were before: `plain` has header.stored_length less
  // Aes256Gcm::kTagBytes. kTampered unless all of it is as `writer` sealed it; kKeyWriteOnly if the
  // keys can't read it.
  Status Open(const RecordHeader& header, std::span<const uint8_t> stored,
              const RecordWriter& writer, std::vector<uint8_t>* plain);

 private:
  Status SetKey(const RecordWriter& writer);

  const std::shared_ptr<const SealKeys> keys_;
  std::unique_ptr<Aes256Gcm> cipher_;
  RecordWriter writer_;  // whose key the cipher holds, once there is one
};

// Opens a whole record, header and all, into an unsealed one: for moving it. Its stored bytes are
// checked against their checksum, not their content's id.
Status UnsealRecord(RecordOpener* opener, std::span<const uint8_t> record,
                    const RecordWriter& writer, std::vector<uint8_t>* unsealed);

}  // namespace firn

#endif  // FIRN_CODEC_SEAL_H_
