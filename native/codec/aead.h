// AES-256-GCM, from what the platform has: OpenSSL's libcrypto (aead_posix.cc) or CNG
// (aead_win.cc).
//
// The one place that knows a cipher. An Aes256Gcm belongs to one thread and holds one key at a
// time; setting another one costs well under a microsecond. That no nonce is used twice with a key
// is the caller's part (codec/seal.h).
#ifndef FIRN_CODEC_AEAD_H_
#define FIRN_CODEC_AEAD_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "codec/hash.h"
#include "core/status.h"

namespace firn {

class Aes256Gcm {
 public:
  static constexpr size_t kTagBytes = 16;
  using Nonce = std::array<uint8_t, 12>;
  using Tag = std::array<uint8_t, kTagBytes>;

  // kInternal if the platform's library can't do it.
  static Result<std::unique_ptr<Aes256Gcm>> Create();
  ~Aes256Gcm();  // wipes the key

  Status SetKey(const Key& key);
  // Encrypts `bytes` in place. `associated` is authenticated with them.
  Status Seal(const Nonce& nonce, std::span<const uint8_t> associated, std::span<uint8_t> bytes,
              Tag* tag);
  // Decrypts into `plain`, which is as long as `bytes`. False if anything is not as it was sealed:
  // then `plain` is not to be used.
  Result<bool> Open(const Nonce& nonce, std::span<const uint8_t> associated,
                    std::span<const uint8_t> bytes, const Tag& tag, std::span<uint8_t> plain);

 private:
  struct State;
  explicit Aes256Gcm(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

// Overwrites memory that held a secret, in a way that no compiler leaves out.
void WipeMemory(std::span<uint8_t> bytes);

}  // namespace firn

#endif  // FIRN_CODEC_AEAD_H_
