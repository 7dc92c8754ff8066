// The addon's functions for collections; registered in addon.cc.
#ifndef FIRN_ADDON_COLLECT_H_
#define FIRN_ADDON_COLLECT_H_

#include <napi.h>

namespace firn::addon {

Napi::Value StartMark(const Napi::CallbackInfo& info);
Napi::Value StartRescue(const Napi::CallbackInfo& info);
Napi::Value StartMergeIndex(const Napi::CallbackInfo& info);
Napi::Value ReleaseMark(const Napi::CallbackInfo& info);

}  // namespace firn::addon

#endif  // FIRN_ADDON_COLLECT_H_
