// Is this memory all zero? At the speed of memory, as every page of every disk is asked.
#ifndef FIRN_CHUNK_ZERO_H_
#define FIRN_CHUNK_ZERO_H_

#include <cstddef>
#include <cstdint>

namespace firn {

// REQUIRES: size is a multiple of 64. Thread-safe. Leaves at the first block of 64 bytes that is
// not zero.
bool IsZero(const uint8_t* data, size_t size);

// Without vector instructions, for tests and other CPUs.
bool IsZeroPortable(const uint8_t* data, size_t size);

}  // namespace firn

#endif  // FIRN_CHUNK_ZERO_H_
