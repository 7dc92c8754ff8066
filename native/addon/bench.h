// The addon's functions for measurements; registered in addon.cc.
#ifndef FIRN_ADDON_BENCH_H_
#define FIRN_ADDON_BENCH_H_

#include <napi.h>

namespace firn::addon {

Napi::Value StartIoScan(const Napi::CallbackInfo& info);
Napi::Value StartStageScan(const Napi::CallbackInfo& info);
Napi::Value StartMakeData(const Napi::CallbackInfo& info);
Napi::Value NewKernel(const Napi::CallbackInfo& info);
Napi::Value ListBlake3(const Napi::CallbackInfo& info);
Napi::Value FillBenchData(const Napi::CallbackInfo& info);

}  // namespace firn::addon

#endif  // FIRN_ADDON_BENCH_H_
