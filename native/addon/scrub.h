// The addon's functions for scrubs; registered in addon.cc.
#ifndef FIRN_ADDON_SCRUB_H_
#define FIRN_ADDON_SCRUB_H_

#include <napi.h>

namespace firn::addon {

Napi::Value StartScrub(const Napi::CallbackInfo& info);
Napi::Value StartTrace(const Napi::CallbackInfo& info);

}  // namespace firn::addon

#endif  // FIRN_ADDON_SCRUB_H_
