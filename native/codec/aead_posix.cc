// AES-256-GCM by OpenSSL's libcrypto.
//
// Inside Node the same names are Node's own OpenSSL, or the system's if Node uses that; what is
// called here is the same in all of OpenSSL 1.1 and 3.
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "codec/aead.h"

namespace firn {

namespace {

Status Failed(const char* what) {
  return Status::Error(Code::kInternal, std::string("OpenSSL can't ") + what);
}

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

// A record is at most some MiB, so lengths fit into OpenSSL's int.
int LengthOf(std::span<const uint8_t> bytes) { return static_cast<int>(bytes.size()); }

}  // namespace

// One context for each direction: OpenSSL keeps the schedules of AES and GHASH in it, so that only
// the nonce is set for each record.
struct Aes256Gcm::State {
  std::unique_ptr<EVP_CIPHER_CTX, FreeContext> seal;
  std::unique_ptr<EVP_CIPHER_CTX, FreeContext> open;
};

Aes256Gcm::Aes256Gcm(std::unique_ptr<State> state) : state_(std::move(state)) {}
Aes256Gcm::~Aes256Gcm() = default;  // EVP_CIPHER_CTX_free wipes what it frees

Result<std::unique_ptr<Aes256Gcm>> Aes256Gcm::Create() {
  auto state = std::make_unique<State>();
  state->seal.reset(EVP_CIPHER_CTX_new());
  state->open.reset(EVP_CIPHER_CTX_new());
  if (!state->seal || !state->open) return Failed("make a cipher's context");
  return std::unique_ptr<Aes256Gcm>(new Aes256Gcm(std::move(state)));
}

Status Aes256Gcm::SetKey(const Key& key) {
  const EVP_CIPHER* cipher = EVP_aes_256_gcm();
  if (EVP_EncryptInit_ex(state_->seal.get(), cipher, nullptr, key.data(), nullptr) != 1 ||
      EVP_DecryptInit_ex(state_->open.get(), cipher, nullptr, key.data(), nullptr) != 1) {
    return Failed("take an AES-256 key");
  }
  return Status::Ok();
}

Status Aes256Gcm::Seal(const Nonce& nonce, std::span<const uint8_t> associated,
                       std::span<uint8_t> bytes, Tag* tag) {
  EVP_CIPHER_CTX* context = state_->seal.get();
  int length = 0;
  uint8_t rest[kTagBytes];
  const bool sealed =
      EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
      EVP_EncryptUpdate(context, nullptr, &length, associated.data(), LengthOf(associated)) == 1 &&
      EVP_EncryptUpdate(context, bytes.data(), &length, bytes.data(), LengthOf(bytes)) == 1 &&
      EVP_EncryptFinal_ex(context, rest, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, kTagBytes, tag->data()) == 1;
  return sealed ? Status::Ok() : Failed("encrypt");
}

Result<bool> Aes256Gcm::Open(const Nonce& nonce, std::span<const uint8_t> associated,
                             std::span<const uint8_t> bytes, const Tag& tag,
                             std::span<uint8_t> plain) {
  EVP_CIPHER_CTX* context = state_->open.get();
  int length = 0;
  Tag expected = tag;  // the call wants memory that it could write to
  const bool decrypted =
      EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
      EVP_DecryptUpdate(context, nullptr, &length, associated.data(), LengthOf(associated)) == 1 &&
      EVP_DecryptUpdate(context, plain.data(), &length, bytes.data(), LengthOf(bytes)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, kTagBytes, expected.data()) == 1;
  if (!decrypted) return Failed("decrypt");
  uint8_t rest[kTagBytes];
  return EVP_DecryptFinal_ex(context, rest, &length) == 1;
}

void WipeMemory(std::span<uint8_t> bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

}  // namespace firn
