// The addon's functions for streams of points; registered in addon.cc.
#ifndef FIRN_ADDON_STREAM_H_
#define FIRN_ADDON_STREAM_H_

#include <napi.h>

namespace firn::addon {

Napi::Value NewSendStream(const Napi::CallbackInfo& info);
Napi::Value StartSend(const Napi::CallbackInfo& info);
Napi::Value StartOpenStream(const Napi::CallbackInfo& info);
Napi::Value StartReceive(const Napi::CallbackInfo& info);
Napi::Value NewWholeMaps(const Napi::CallbackInfo& info);
Napi::Value StartCheckWhole(const Napi::CallbackInfo& info);
Napi::Value StartWriteHave(const Napi::CallbackInfo& info);
Napi::Value StartReadHave(const Napi::CallbackInfo& info);
Napi::Value NewPipeEnds(const Napi::CallbackInfo& info);

}  // namespace firn::addon

#endif  // FIRN_ADDON_STREAM_H_
