// AES-256-GCM by Windows' own CNG (bcrypt.dll).
#include <windows.h>
// After windows.h, which it needs.
#include <bcrypt.h>

#include "codec/aead.h"

namespace firn {

namespace {

Status Failed(const char* what, NTSTATUS status) {
  return Status::Error(Code::kInternal, std::string("CNG can't ") + what + ": status " +
                                            std::to_string(static_cast<uint32_t>(status)));
}

constexpr NTSTATUS kAuthTagMismatch = static_cast<NTSTATUS>(0xC000A002);

UCHAR* Writable(std::span<const uint8_t> bytes) { return const_cast<UCHAR*>(bytes.data()); }

BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO ModeOf(const Aes256Gcm::Nonce& nonce,
                                             std::span<const uint8_t> associated, uint8_t* tag) {
  BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO mode;
  BCRYPT_INIT_AUTH_MODE_INFO(mode);
  mode.pbNonce = Writable(nonce);
  mode.cbNonce = static_cast<ULONG>(nonce.size());
  mode.pbAuthData = Writable(associated);
  mode.cbAuthData = static_cast<ULONG>(associated.size());
  mode.pbTag = tag;
  mode.cbTag = Aes256Gcm::kTagBytes;
  return mode;
}

}  // namespace

struct Aes256Gcm::State {
  BCRYPT_ALG_HANDLE algorithm = nullptr;
  BCRYPT_KEY_HANDLE key = nullptr;
  ~State() {
    if (key != nullptr) BCryptDestroyKey(key);  // wipes it
    if (algorithm != nullptr) BCryptCloseAlgorithmProvider(algorithm, 0);
  }
};

Aes256Gcm::Aes256Gcm(std::unique_ptr<State> state) : state_(std::move(state)) {}
Aes256Gcm::~Aes256Gcm() = default;

Result<std::unique_ptr<Aes256Gcm>> Aes256Gcm::Create() {
  auto state = std::make_unique<State>();
  NTSTATUS status =
      BCryptOpenAlgorithmProvider(&state->algorithm, BCRYPT_AES_ALGORITHM, nullptr, 0);
  if (status < 0) return Failed("give AES", status);
  wchar_t mode[] = BCRYPT_CHAIN_MODE_GCM;
  status = BCryptSetProperty(state->algorithm, BCRYPT_CHAINING_MODE, reinterpret_cast<UCHAR*>(mode),
                             sizeof mode, 0);
  if (status < 0) return Failed("give AES-GCM", status);
  return std::unique_ptr<Aes256Gcm>(new Aes256Gcm(std::move(state)));
}

Status Aes256Gcm::SetKey(const Key& key) {
  if (state_->key != nullptr) BCryptDestroyKey(state_->key);
  state_->key = nullptr;
  const NTSTATUS status =
      BCryptGenerateSymmetricKey(state_->algorithm, &state_->key, nullptr, 0, Writable(key),
                                 static_cast<ULONG>(key.size()), 0);
  return status < 0 ? Failed("take an AES-256 key", status) : Status::Ok();
}

Status Aes256Gcm::Seal(const Nonce& nonce, std::span<const uint8_t> associated,
                       std::span<uint8_t> bytes, Tag* tag) {
  BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO mode = ModeOf(nonce, associated, tag->data());
  const auto length = static_cast<ULONG>(bytes.size());
  ULONG written = 0;
  const NTSTATUS status = BCryptEncrypt(state_->key, bytes.data(), length, &mode, nullptr, 0,
                                        bytes.data(), length, &written, 0);
  return status < 0 ? Failed("encrypt", status) : Status::Ok();
}

Result<bool> Aes256Gcm::Open(const Nonce& nonce, std::span<const uint8_t> associated,
                             std::span<const uint8_t> bytes, const Tag& tag,
                             std::span<uint8_t> plain) {
  Tag expected = tag;  // the call wants memory that it could write to
  BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO mode = ModeOf(nonce, associated, expected.data());
  const auto length = static_cast<ULONG>(bytes.size());
  ULONG written = 0;
  const NTSTATUS status = BCryptDecrypt(state_->key, Writable(bytes), length, &mode, nullptr, 0,
                                        plain.data(), length, &written, 0);
  if (status == kAuthTagMismatch) return false;
  if (status < 0) return Failed("decrypt", status);
  return true;
}

void WipeMemory(std::span<uint8_t> bytes) { SecureZeroMemory(bytes.data(), bytes.size()); }

}  // namespace firn
